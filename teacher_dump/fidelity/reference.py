"""The teacher's whole distribution, from the plain forward of its transformers model.

Nothing of the engines is used: not their batching, not their projection, not their reduction. Weights are computed
with in the next wider type than the engine's, so that the difference is the engine's and not the reference's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from shards.runtime import machine
from teacher_dump.model.causal_lm import arguments, load
from teacher_dump.tasks.windowing import Window

WIDER = {"bfloat16": "float32", "float32": "float64"}
"""Type of the reference, by the engine's."""
_PIECE_POSITIONS = 128
_SPARE = 1.3
"""Room that a GPU must have, in terms of the weights' bytes."""


class Reference:
    """A teacher in transformers, in this process: on the GPU where it has room for the wider weights."""

    def __init__(self, folder: Path, *, vocab_size: int, parameters: int, dtype: str) -> None:
        machine.use_threads(torch)
        kind: torch.dtype = getattr(torch, dtype)
        self._vocab_size = vocab_size
        self._model = load(folder, dtype=dtype)
        self._arguments = arguments(self._model)
        room = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
        self._device = torch.device("cuda" if room > _SPARE * parameters * kind.itemsize else "cpu")
        self._model.to(self._device)

    @torch.inference_mode()
    def logits(self, window: Window) -> Iterator[torch.Tensor]:
        """Yield the logits of a row's positions in order, [at most 128, V], vocabulary padding cut off."""
        ids = torch.from_numpy(window.tokens).long()[None].to(self._device)
        logits_TV = self._model(input_ids=ids, **self._arguments).logits[0, :-1, : self._vocab_size]
        yield from logits_TV.split(_PIECE_POSITIONS)
