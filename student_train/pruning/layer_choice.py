"""Choose which layers of a model a shallower student keeps: by a measure of each layer, or evenly.

A measure says how much each layer of the uncut model does (`influence.py`). The layers that do least are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from shards.errors import first_line
from shards.format.chunk import Chunk
from student_train.data.hashing import HeldOutRule
from student_train.data.loader import ChunkSource
from student_train.model.parts import layers_of
from student_train.model.probe import MODEL_ERRORS
from student_train.pruning.influence import Rows, block_influence, removal_kl

ROW_TOKENS = 256
"""Most tokens of one row among them, so that they come from many documents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerChoice:
    """The layers that a student keeps, and why."""

    method: str
    """`kl`, `importance` or `even`: the method used, which may differ from the one requested."""
    kept: tuple[int, ...]
    """Indices of the kept layers, ascending."""
    num_layers: int
    """Layers of the uncut model."""
    influence: tuple[float, ...] = ()
    """What the method measures of each layer of the uncut model, see `influence.py`; empty for `even`."""
    tokens: int = 0
    """Tokens that influence was measured on."""
    reason: str = ""
    """Why influence was not measured although it was requested."""

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as JSON types."""
        return {
            "method": self.method,
            "kept": list(self.kept),
            "num_layers": self.num_layers,
            "influence": [round(value, 6) for value in self.influence],
            "tokens": self.tokens,
            "reason": self.reason,
        }

    def describe(self) -> str:
        """Return one line that names the kept layers and the influence of each layer."""
        text = f"keeping layers {format_ranges(self.kept)} of {self.num_layers}"
        if self.method == "even":
            return f"{text}, spread evenly" + (f" ({self.reason})" if self.reason else "")
        values = " ".join(f"{value:.3f}".removeprefix("0") for value in self.influence)
        measured = MEASURES[self.method].title
        return f"{text}; {measured} layers 0 to {self.num_layers - 1} on {self.tokens:,} tokens: {values}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerMeasure:
    """A measure of each layer, by which layers are chosen."""

    title: str
    """What is measured, as it stands before `layers 0 to 23`."""
    of: Callable[[Any, Rows], tuple[float, ...]]
    """Returns the influence of each layer of a model on rows of tokens; ValueError where it cannot."""
    tokens: int
    """Tokens that it is measured on."""


MEASURES = {
    "kl": LayerMeasure(title="KL in nats without each of", of=removal_kl, tokens=512),
    "importance": LayerMeasure(title="block influence of", of=block_influence, tokens=2048),
}
"""The measures, by the name of the method."""


class Choose(Protocol):
    """A rule that picks the layers to keep."""

    def __call__(self, model: Any, keep: int, *, unfit: str) -> LayerChoice:
        """Return `keep` layers of the uncut `model`; `unfit` is why influence cannot be measured, "" where it can."""


def from_dict(record: dict[str, Any]) -> LayerChoice:
    """Return the choice that `to_dict` wrote."""
    return LayerChoice(
        method=str(record["method"]),
        kept=tuple(map(int, record["kept"])),
        num_layers=int(record["num_layers"]),
        influence=tuple(map(float, record["influence"])),
        tokens=int(record["tokens"]),
        reason=str(record["reason"]),
    )


def format_ranges(indices: Sequence[int]) -> str:
    """Return ascending indices as text, with runs joined: 0-4, 7, 9-11."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def evenly_spaced_layers(num_layers: int, keep: int) -> list[int]:
    """Return `keep` of `num_layers` layers, evenly spaced, with the first and the last."""
    return [round(i * (num_layers - 1) / (keep - 1)) for i in range(keep)]


def evenly(num_layers: int, keep: int, *, reason: str = "") -> LayerChoice:
    """Return the choice of `evenly_spaced_layers`; `reason` is why influence was not measured."""
    kept = tuple(evenly_spaced_layers(num_layers, keep))
    return LayerChoice(method="even", kept=kept, num_layers=num_layers, reason=reason)


def choose_evenly(model: Any, keep: int, *, unfit: str = "") -> LayerChoice:
    """Return `keep` layers of `model`, evenly spaced; a `Choose`."""
    return evenly(len(layers_of(model)), keep)


def by_influence(influence: Sequence[float], keep: int, *, method: str, tokens: int) -> LayerChoice:
    """Return the `keep` layers of highest influence, in the model's order; of equal layers the later are kept.

    Args:
        influence: Influence of each layer.
        keep: Number of layers to keep.
        method: What was measured: a key of `MEASURES`.
        tokens: Tokens that influence was measured on.
    """
    ascending = sorted(range(len(influence)), key=lambda i: (influence[i], i))
    kept = tuple(sorted(ascending[len(influence) - keep :]))
    return LayerChoice(method=method, kept=kept, num_layers=len(influence), influence=tuple(influence), tokens=tokens)


def training_rows(
    cache: ChunkSource, *, held_out: HeldOutRule, max_tokens: int, row_tokens: int = ROW_TOKENS
) -> list[npt.NDArray[np.int64]]:
    """Return the beginnings of the cache's first training rows, in its order.

    Chunks are read until there are enough tokens.

    Args:
        cache: The cache.
        held_out: Which rows are left out.
        max_tokens: Most tokens of all rows; the last row is cut to fit.
        row_tokens: Most tokens of a row.
    """
    rows: list[npt.NDArray[np.int64]] = []
    left = max_tokens
    for i in range(len(cache)):
        chunk: Chunk = cache[i]
        for r, info in enumerate(chunk.rows):
            if left < 2:
                return rows
            if not held_out.holds_out(info):
                rows.append(chunk.row(r).tokens[: min(row_tokens, left)].astype(np.int64))
                left -= len(rows[-1])
    return rows


def choose_by_influence(
    model: Any,
    keep: int,
    *,
    method: str,
    cache: ChunkSource,
    held_out: HeldOutRule,
    unfit: str = "",
) -> LayerChoice:
    """Return the `keep` layers of `model` with the highest influence on the cache's training rows; a `Choose`.

    Where influence cannot be measured, the layers are evenly spaced, and the result holds the reason.

    Args:
        model: The uncut model.
        keep: Number of layers to keep.
        method: What is measured: a key of `MEASURES`.
        cache: Cache whose tokens the model reads.
        held_out: Which rows are left out.
        unfit: Why influence cannot be measured; "" where it can.
    """
    num_layers = len(layers_of(model))
    if unfit:
        return evenly(num_layers, keep, reason=f"influence not measured: {unfit}")
    measure = MEASURES[method]
    rows = training_rows(cache, held_out=held_out, max_tokens=measure.tokens)
    try:
        influence = measure.of(model, rows)
    except torch.OutOfMemoryError:
        raise
    except MODEL_ERRORS as error:
        return evenly(num_layers, keep, reason=f"influence not measured: {first_line(error)}")
    return by_influence(influence, keep, method=method, tokens=sum(map(len, rows)))
