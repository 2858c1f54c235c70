"""The teacher's whole distribution, from the plain forward of its transformers model.

It shares no code with the engines: neither batching nor output projection nor reduction. The exact distribution is
computed in the next wider dtype than the engine's, so that a difference is the engine's error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from shards.format.batch import Row
from shards.runtime import machine
from teacher_dump.engines.base import EngineConfig
from teacher_dump.engines.records import Records, draw_offsets, to_row
from teacher_dump.engines.sparsify import sparsify
from teacher_dump.fidelity.views import Float64
from teacher_dump.model.causal_lm import forward_options, load
from teacher_dump.tasks.windowing import Window

WIDER_DTYPE = {"bfloat16": "float32", "float32": "float64"}
"""Dtype of the reference by the engine's."""
_BLOCK_POSITIONS = 128
_MEMORY_FACTOR = 1.3
"""Free memory that a GPU must have, in units of the weights' bytes."""


class Reference:
    """A teacher in transformers, in this process: on the GPU if it has memory for the weights.

    Args:
        folder: Transformers folder.
        vocab_size: Ids of the vocabulary without padding, V.
        parameters: Number of weights.
        dtype: Name of a torch dtype.
    """

    def __init__(self, folder: Path, *, vocab_size: int, parameters: int, dtype: str) -> None:
        machine.use_threads(torch)
        torch_dtype: torch.dtype = getattr(torch, dtype)
        self._vocab_size = vocab_size
        self._model = load(folder, dtype=dtype)
        self._options = forward_options(self._model)
        free_bytes = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
        fits = free_bytes > _MEMORY_FACTOR * parameters * torch_dtype.itemsize
        self._device = torch.device("cuda" if fits else "cpu")
        self._model.to(self._device)

    def logits(self, window: Window) -> Iterator[torch.Tensor]:
        """Yield the logits of a row's positions in blocks of consecutive ones, [at most 128, V]."""
        first = window.info.context - 1
        ids = torch.from_numpy(window.tokens).long()[None].to(self._device)
        with torch.inference_mode():
            logits_TV = self._model(input_ids=ids, **self._options).logits[0, first:-1, : self._vocab_size]
            blocks = logits_TV.split(_BLOCK_POSITIONS)
        yield from blocks

    def record(self, window: Window, config: EngineConfig) -> Row:
        """Return the records that this model's logits give for a row."""
        whitespace_V = torch.from_numpy(config.whitespace_mask()).to(self._device)
        labels = torch.from_numpy(window.labels).long().to(self._device)
        offsets = torch.from_numpy(window_offsets(window, config.seed)).to(self._device)
        blocks: list[Records] = []
        first = 0
        for logits in self.logits(window):
            last = first + len(logits)
            block = sparsify(
                logits, labels[first:last], offsets[first:last], spec=config.spec, whitespace_V=whitespace_V
            )
            blocks.append(block)
            first = last
        return to_row(window, np.concatenate([b.pack().cpu().numpy() for b in blocks]), config.spec)


def window_offsets(window: Window, seed: int) -> Float64:
    """Return the sampling offsets of a window's positions, float64 [P]."""
    return draw_offsets(window.info.document, window.info.window, seed, len(window.labels))
