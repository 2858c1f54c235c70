"""Choose which layers of a model a shallower student keeps: by importance, or evenly.

Importance is ShortGPT's block influence (Men et al. 2024, arXiv 2403.03853): 1 - cos(h_in, h_out), the mean over tokens
of one minus the cosine between the hidden state that enters a layer and the one that leaves it. Layers with the lowest
influence change the hidden state least and are dropped. One forward pass over the uncut model measures all layers.

Shapes: B batch, T tokens, H hidden size, L layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from shards.format.chunk import Chunk
from student_train.data.hashing import HeldOutRule
from student_train.data.loader import ChunkSource
from student_train.model.parts import layers_of
from student_train.model.probe import device_of, last_hidden

MEASURED_TOKENS = 2048
"""Tokens that influence is measured on."""
ROW_TOKENS = 256
"""Most tokens of one row among them, so that they come from many documents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerChoice:
    """The layers that a student keeps, and why."""

    method: str
    """`importance` or `even`: the method used, which may differ from the one requested."""
    kept: tuple[int, ...]
    """Indices of the kept layers, ascending."""
    num_layers: int
    """Layers of the uncut model."""
    influence: tuple[float, ...] = ()
    """Block influence of each layer of the uncut model, 0 to 2; empty if it was not measured."""
    tokens: int = 0
    """Tokens that influence was measured on."""
    reason: str = ""
    """Why influence was not measured although `importance` was requested."""

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
        return f"{text}; influence of layers 0 to {self.num_layers - 1} on {self.tokens:,} tokens: {values}"


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


def by_influence(influence: Sequence[float], keep: int, *, tokens: int) -> LayerChoice:
    """Return the `keep` layers of highest influence, in the model's order; of equal layers the later are kept.

    Args:
        influence: Block influence of each layer.
        keep: Number of layers to keep.
        tokens: Tokens that influence was measured on.
    """
    ascending = sorted(range(len(influence)), key=lambda i: (influence[i], i))
    kept = tuple(sorted(ascending[len(influence) - keep :]))
    return LayerChoice(
        method="importance", kept=kept, num_layers=len(influence), influence=tuple(influence), tokens=tokens
    )


def training_rows(
    cache: ChunkSource, *, held_out: HeldOutRule, max_tokens: int = MEASURED_TOKENS, row_tokens: int = ROW_TOKENS
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


def choose_by_importance(
    model: Any,
    keep: int,
    *,
    cache: ChunkSource,
    held_out: HeldOutRule,
    unfit: str = "",
    max_tokens: int = MEASURED_TOKENS,
) -> LayerChoice:
    """Return the `keep` layers of `model` with the highest influence on the cache's training rows; a `Choose`.

    Where influence cannot be measured, the layers are evenly spaced, and the result holds the reason.
    """
    num_layers = len(layers_of(model))
    if unfit:
        return evenly(num_layers, keep, reason=f"influence not measured: {unfit}")
    rows = training_rows(cache, held_out=held_out, max_tokens=max_tokens)
    try:
        influence = block_influence(model, rows)
    except ValueError as error:
        return evenly(num_layers, keep, reason=f"influence not measured: {error}")
    return by_influence(influence, keep, tokens=sum(map(len, rows)))


def block_influence(model: Any, rows: Iterable[npt.NDArray[np.int64]]) -> tuple[float, ...]:
    """Return the block influence of each layer [L].

    The mean is over all tokens of all rows, summed in float64. The model runs in evaluation mode, one row at a time,
    without the projection to the vocabulary.

    Args:
        model: transformers causal language model.
        rows: Token ids of each row.

    Raises:
        ValueError: There are no rows, or a layer does not map one hidden state to another.
    """
    num_tokens = 0
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), _summed_influence(layers_of(model)) as sums_L:
            for tokens in rows:
                last_hidden(model, torch.from_numpy(tokens)[None].to(device_of(model)))
                num_tokens += len(tokens)
    finally:
        model.train(was_training)
    if not num_tokens:
        raise ValueError("there are no rows to measure influence on")
    return tuple((sums_L / num_tokens).tolist())


@contextmanager
def _summed_influence(layers: Sequence[torch.nn.Module]) -> Iterator[torch.Tensor]:
    """Add the influence of each layer over the tokens of each forward pass to the yielded tensor (float64 [L])."""
    entered: list[torch.Tensor | None] = [None] * len(layers)
    sums_L = torch.zeros(len(layers), dtype=torch.float64)

    def before(i: int) -> Any:
        def hook(_layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            # A copy, as a layer may add to its input in place.
            entered[i] = (args[0] if args else kwargs["hidden_states"]).to(torch.float64, copy=True)

        return hook

    def after(i: int) -> Any:
        def hook(_layer: Any, _args: Any, output: Any) -> None:
            left_BTH = output if isinstance(output, torch.Tensor) else output[0]
            entered_BTH = entered[i]
            if entered_BTH is None or entered_BTH.shape != left_BTH.shape:
                raise ValueError(f"layer {i} does not map one hidden state to another")
            cosine_BT = torch.nn.functional.cosine_similarity(entered_BTH, left_BTH.double(), dim=-1)
            sums_L[i] += (1.0 - cosine_BT).sum().cpu()
            entered[i] = None

        return hook

    handles = [layer.register_forward_pre_hook(before(i), with_kwargs=True) for i, layer in enumerate(layers)]
    handles += [layer.register_forward_hook(after(i)) for i, layer in enumerate(layers)]
    try:
        yield sums_L
    finally:
        for handle in handles:
            handle.remove()
