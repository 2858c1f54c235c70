"""Records from transformers.

Slower than vLLM on a GPU, but runs wherever PyTorch does, and its records do not depend on what else is in a batch
beyond the batch's own rows, which are fixed by the task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from shards.runtime import machine
from teacher_dump.engines import Packed, Teaching
from teacher_dump.engines.own_logits import OwnLogits
from teacher_dump.engines.sparsify import Records, offsets, reduce
from teacher_dump.model.causal_lm import load
from teacher_dump.tasks.windowing import Window

BATCH_TOKENS = 16_384
"""Tokens of one forward pass on a GPU. On a CPU a row at a time is as fast."""


class TransformersEngine:
    """A teacher in this process."""

    def __init__(self, teaching: Teaching) -> None:
        self._teaching = teaching
        cuda = torch.cuda.is_available()
        self._device = torch.device("cuda" if cuda else "cpu")
        machine.use_threads(torch)
        model = load(teaching.folder, dtype=teaching.dtype).to(self._device)
        self._logits = OwnLogits(
            model, vocab_size=teaching.vocab_size, window_tokens=teaching.window_tokens, name=teaching.folder
        )
        self._whitespace = torch.from_numpy(teaching.whitespace_mask()).to(self._device)

    def capture(self, windows: Sequence[Window]) -> Iterator[Packed]:
        """Yield the packed records of each window, in order."""
        batch: list[Window] = []
        for window in windows:
            width = max(len(w.tokens) for w in [*batch, window])
            alone = self._device.type == "cpu" or not self._logits.is_ragged
            if batch and (alone or width * (len(batch) + 1) > BATCH_TOKENS):
                yield from self._forward(batch)
                batch = []
            batch.append(window)
        if batch:
            yield from self._forward(batch)

    @torch.inference_mode()
    def _forward(self, batch: Sequence[Window]) -> list[Packed]:
        # Padding on the right: `OwnLogits` has tried that it changes nothing.
        width = max(len(w.tokens) for w in batch)
        ids_BT = torch.zeros(len(batch), width, dtype=torch.int64)
        for b, window in enumerate(batch):
            ids_BT[b, : len(window.tokens)] = torch.from_numpy(window.tokens)
        ids_BT = ids_BT.to(self._device)
        logits, spec = self._logits.rows(ids_BT), self._teaching.spec
        step = spec.piece_positions(self._teaching.vocab_size)
        packed = []
        for b, window in enumerate(batch):
            u_P = torch.from_numpy(
                offsets(window.info.document, window.info.window, self._teaching.seed, len(window.tokens) - 1)
            ).to(self._device)
            pieces: list[Records] = []
            for i in range(0, len(u_P), step):
                j = min(i + step, len(u_P))
                piece = reduce(
                    logits(b, i, j), ids_BT[b, i + 1 : j + 1], u_P[i:j], spec=spec, whitespace_V=self._whitespace
                )
                pieces.append(piece)
            packed.append(np.concatenate([p.pack().cpu().numpy() for p in pieces]))
        return packed

    def close(self) -> None:
        """Free the teacher."""
        del self._logits
