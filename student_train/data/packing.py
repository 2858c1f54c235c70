"""Pack rows into sequences with little padding, so that each row is computed as if it were alone.

Shapes: B bins (sequences), T tokens of a bin, P positions with a target. The end of a bin that no row fills is padding:
token 0, which no row attends to. The position ids of a row start at 0. `layout.py` finds which of `LAYOUTS` a model
supports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

from shards.format.chunk import RowInfo

MAX_WASTE = 0.02
"""Share of padding that is accepted. Above it, bins get wider: wider bins cost attention, narrow ones padding."""
LAYOUTS = ("mask", "positions", "masks", "padded", "single")
"""How rows share a sequence.

`mask`: one attention mask for all layers separates them.
`positions`: position ids restart at each row, and the model derives its masks from them.
`masks`: as `positions`, with one explicit mask for each kind of layer.
`padded`: a sequence holds one row.
`single`: a forward pass holds one row.
"""


class TokenRow(Protocol):
    """A row in the student's tokens."""

    @property
    def tokens(self) -> npt.NDArray[np.integer]:
        """Token ids."""

    @property
    def rows(self) -> tuple[RowInfo, ...]:
        """The origin of the row, as the only entry."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Packing:
    """How rows are grouped into batches and share sequences."""

    micro_tokens: int
    """Most tokens of a batch."""
    layout: str = "mask"
    """How rows share a sequence, one of `LAYOUTS`."""
    widest: int | None = None
    """Most tokens of a sequence that rows share; None without a limit."""


class BatchTargets(Protocol):
    """Targets of a batch. Only the objective that made the batch reads their content."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of terms of each part of the loss; `ce` counts positions."""

    def to(self, device: torch.device) -> Self:
        """Return the targets on `device`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Inputs and targets of one forward pass."""

    tokens_BT: torch.Tensor
    """int64 token ids."""
    position_ids_BT: torch.Tensor | None
    """int64 position ids that restart at each row; None where each bin holds one row."""
    attention_mask_B1TT: torch.Tensor | None
    """bool, True where a query may attend to a key; None where plain causal attention, or the model's own masks, do."""
    index_P: torch.Tensor
    """int64 place of each position with a target, flattened over bins."""
    targets: BatchTargets
    """Targets of the positions."""
    rows: tuple[RowInfo, ...]
    """The rows, in the order of their positions."""
    row_positions: tuple[int, ...]
    """Positions with a target of each row."""
    kind: int = 0
    """Number of the objective that made the batch, where a run has several."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Counts of text beside these rows that the student cannot read, by reason."""

    @property
    def num_positions(self) -> int:
        """Positions with a target."""
        return sum(self.row_positions)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`."""

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device, non_blocking=True)

        return replace(
            self,
            tokens_BT=move(self.tokens_BT),
            position_ids_BT=None if self.position_ids_BT is None else move(self.position_ids_BT),
            attention_mask_B1TT=None if self.attention_mask_B1TT is None else move(self.attention_mask_B1TT),
            index_P=move(self.index_P),
            targets=self.targets.to(device),
        )


def groups(lengths: list[int], packing: Packing) -> list[slice]:
    """Divide rows into the batches of a step.

    Args:
        lengths: Tokens of each row.
        packing: Most tokens of a batch, and the layout. Padding counts in layout `padded`. A longer row has a batch of
            its own.

    Returns:
        Consecutive slices of the rows.
    """
    if packing.layout == "single":
        return [slice(i, i + 1) for i in range(len(lengths))]
    slices, start, held, longest = [], 0, 0, 0
    for i, length in enumerate(lengths):
        longest = max(longest, length)
        tokens = longest * (i + 1 - start) if packing.layout == "padded" else held + length
        if held and tokens > packing.micro_tokens:
            slices.append(slice(start, i))
            start, held, longest = i, 0, length
        held += length
    if lengths:
        slices.append(slice(start, len(lengths)))
    return slices


def bins(lengths: list[int], *, widest: int | None = None) -> tuple[list[list[int]], int]:
    """Assign rows to bins of a width that is the narrowest multiple of the longest row with little waste.

    First fit, longest rows first; a pure function of the lengths. One bin of all rows wastes nothing, so the search
    ends.

    Args:
        lengths: Tokens of each row.
        widest: Most tokens of a bin; bins of this width may waste more. None without a limit.

    Returns:
        Row numbers of each bin, and the width of the bins.
    """
    longest, total = max(lengths), sum(lengths)
    by_length = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for times in (1, 2, 3, 4, 6, 8):
        if widest is not None and longest * (times + 1) > widest:
            filled = _first_fit(lengths, by_length, max(longest, widest))
            return filled, max(sum(lengths[i] for i in rows) for rows in filled)
        filled = _first_fit(lengths, by_length, longest * times)
        width = max(sum(lengths[i] for i in rows) for rows in filled)
        if total >= (1.0 - MAX_WASTE) * width * len(filled):
            return filled, width
    return [by_length], total


def _first_fit(lengths: list[int], by_length: list[int], capacity: int) -> list[list[int]]:
    filled: list[list[int]] = []
    room: list[int] = []
    for i in by_length:
        b = next((b for b, free in enumerate(room) if free >= lengths[i]), len(room))
        if b == len(room):
            filled.append([])
            room.append(capacity)
        filled[b].append(i)
        room[b] -= lengths[i]
    return filled


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrangement:
    """Rows as sequences: the inputs of a forward pass, as in `Batch`."""

    tokens_BT: torch.Tensor
    position_ids_BT: torch.Tensor | None
    attention_mask_B1TT: torch.Tensor | None
    starts: npt.NDArray[np.int64]
    """Place of the first token of each row, flattened over bins."""


def arrange(rows: Sequence[npt.NDArray[np.integer]], *, layout: str = "mask", widest: int | None = None) -> Arrangement:
    """Return the token ids of rows as sequences.

    Args:
        rows: Token ids of each row.
        layout: One of `LAYOUTS`.
        widest: Most tokens of a sequence that rows share; None without a limit.
    """
    lengths = [len(row) for row in rows]
    if layout in ("padded", "single"):
        filled, width = [[i] for i in range(len(rows))], max(lengths)
    else:
        filled, width = bins(lengths, widest=widest)
    tokens_BT = np.zeros((len(filled), width), dtype=np.int64)
    position_ids_BT = np.zeros((len(filled), width), dtype=np.int64)
    owner_BT = np.full((len(filled), width), -1, dtype=np.int64)
    starts = np.zeros(len(rows), dtype=np.int64)
    for b, members in enumerate(filled):
        at = 0
        for i in members:
            span = slice(at, at + lengths[i])
            tokens_BT[b, span] = rows[i]
            position_ids_BT[b, span] = np.arange(lengths[i])
            owner_BT[b, span] = i
            starts[i] = b * width + at
            at += lengths[i]
    shared = any(len(members) > 1 for members in filled)
    return Arrangement(
        tokens_BT=torch.from_numpy(tokens_BT),
        position_ids_BT=torch.from_numpy(position_ids_BT) if shared else None,
        attention_mask_B1TT=_row_mask(owner_BT) if shared and layout == "mask" else None,
        starts=starts,
    )


def _row_mask(owner_BT: npt.NDArray[np.int64]) -> torch.Tensor:
    """Return the causal mask within rows [B, 1, T, T]; `owner_BT` is the row of each token, -1 for padding."""
    owner = torch.from_numpy(owner_BT)
    causal_TT = torch.ones(owner.shape[1], owner.shape[1], dtype=torch.bool).tril()
    return ((owner[:, :, None] == owner[:, None, :]) & causal_TT)[:, None]


def pack(rows: Sequence[TokenRow], targets: BatchTargets, packing: Packing, *, first_labels: Sequence[int]) -> Batch:
    """Return rows and their targets as one batch.

    Args:
        rows: Rows in the student's tokens.
        targets: Targets of the rows' labels, in order.
        packing: How rows share sequences.
        first_labels: Index of the first label of each row, at least 1; the tokens before it are context.
    """
    lengths = [len(row.tokens) for row in rows]
    arranged = arrange([row.tokens for row in rows], layout=packing.layout, widest=packing.widest)
    spans = zip(arranged.starts, first_labels, lengths, strict=True)
    index_P = np.concatenate([start + np.arange(first - 1, n - 1) for start, first, n in spans])
    return Batch(
        tokens_BT=arranged.tokens_BT,
        position_ids_BT=arranged.position_ids_BT,
        attention_mask_B1TT=arranged.attention_mask_B1TT,
        index_P=torch.from_numpy(index_P),
        targets=targets,
        rows=tuple(row.rows[0] for row in rows),
        row_positions=tuple(max(0, n - first) for n, first in zip(lengths, first_labels, strict=True)),
    )


def empty_batch(targets: BatchTargets) -> Batch:
    """Return a batch of one token without labels; `targets` are those of no position."""
    return Batch(
        tokens_BT=torch.zeros(1, 1, dtype=torch.int64),
        position_ids_BT=None,
        attention_mask_B1TT=None,
        index_P=torch.zeros(0, dtype=torch.int64),
        targets=targets,
        rows=(),
        row_positions=(),
    )
