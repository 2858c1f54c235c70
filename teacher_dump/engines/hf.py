"""Engine on transformers, in the process that calls it.

It is slower than vLLM on a GPU, and runs wherever PyTorch does. Its records depend on the rows of the same batch only,
and the task fixes those.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from shards.runtime import machine
from teacher_dump.engines.base import EngineConfig
from teacher_dump.engines.blockwise_logits import BlockLogits, BlockwiseLogits
from teacher_dump.engines.records import Packed, draw_offsets, with_relations
from teacher_dump.engines.sparsify import sparsify
from teacher_dump.model.causal_lm import load
from teacher_dump.relations.capture import RelationRecorder
from teacher_dump.tasks.windowing import Window

BATCH_TOKENS = {"cpu": 0, "cuda": 16_384}
"""Largest number of tokens of a forward pass of several rows, padding included. On a CPU, one row at a time is as
fast."""


class TransformersEngine:
    """A teacher in transformers, on the GPU if there is one."""

    def __init__(self, config: EngineConfig) -> None:
        """Load the teacher and check its logits.

        Args:
            config: Settings of the engine.

        Raises:
            DumpError: The teacher cannot be loaded, or `BlockwiseLogits` or `RelationRecorder` refuses it.
        """
        self._config = config
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        machine.use_threads(torch)
        model = load(config.folder, dtype=config.dtype).to(self._device)
        self._logits = BlockwiseLogits(
            model, vocab_size=config.vocab_size, window_tokens=config.window_tokens, name=config.folder
        )
        request = config.relations
        self._relations = RelationRecorder(model, request, name=config.folder) if request is not None else None
        self._whitespace_V = torch.from_numpy(config.whitespace_mask()).to(self._device)

    def capture(self, windows: Sequence[Window]) -> Iterator[Packed]:
        """Yield the packed records of each window, in order."""
        max_tokens = BATCH_TOKENS[self._device.type] if self._logits.is_ragged else 0
        batch: list[Window] = []
        for window in windows:
            width = max(len(w.tokens) for w in [*batch, window])
            if batch and width * (len(batch) + 1) > max_tokens:
                yield from self._forward(batch)
                batch = []
            batch.append(window)
        if batch:
            yield from self._forward(batch)

    def close(self) -> None:
        """Release the teacher."""
        del self._logits, self._relations

    def _forward(self, batch: Sequence[Window]) -> list[Packed]:
        """Return the packed records of a batch."""
        # Rows are padded on the right. `BlockwiseLogits` has checked that padding does not change the logits.
        width = max(len(window.tokens) for window in batch)
        ids_BT = torch.zeros(len(batch), width, dtype=torch.int64)
        for row, window in enumerate(batch):
            ids_BT[row, : len(window.tokens)] = torch.from_numpy(window.tokens)
        ids_BT = ids_BT.to(self._device)
        recorder = self._relations
        with torch.inference_mode():
            with contextlib.nullcontext() if recorder is None else recorder.recording():
                block_logits = self._logits.forward(ids_BT)
            records = [self._records(window, ids_BT, row, block_logits) for row, window in enumerate(batch)]
            if recorder is None:
                return records
            for row, window in enumerate(batch):
                if recorder.covers(window.info):  # the vectors of the tokens at which the positions are predicted
                    vectors_PC = recorder.vectors(row, window.info.context - 1, len(window.tokens) - 1)
                    records[row] = with_relations(records[row], vectors_PC.cpu().numpy())
            return records

    def _records(self, window: Window, ids_BT: torch.Tensor, row: int, block_logits: BlockLogits) -> Packed:
        """Return the packed records of one row of a batch. No logits are computed for its context."""
        spec, num_positions, context = self._config.spec, len(window.labels), window.info.context
        offsets = draw_offsets(window.info.document, window.info.window, self._config.seed, num_positions)
        offsets_P = torch.from_numpy(offsets).to(self._device)
        step = spec.block_positions(self._config.vocab_size)
        blocks = []
        for start in range(0, num_positions, step):
            stop = min(start + step, num_positions)
            records = sparsify(
                block_logits(row, context - 1 + start, context - 1 + stop),
                ids_BT[row, context + start : context + stop],
                offsets_P[start:stop],
                spec=spec,
                whitespace_V=self._whitespace_V,
            )
            blocks.append(records.pack().cpu().numpy())
        return np.concatenate(blocks)
