"""Pack rows into sequences, with little padding and each row computed as if it were alone.

Shapes: B bins, T places of a bin, P positions with a target. Places beyond a bin's rows are padding: token 0, which no
row attends to. A row's positions count from 0. `layout.py` finds out which of `LAYOUTS` a model allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from shards.format.chunk import RowInfo
from student_train.cross_tokenizer.targets import CrossRows, CrossTargets, no_targets
from student_train.losses.targets import Targets

MAX_WASTE = 0.02
"""Share of padding that is accepted before rows share wider bins. Wider bins cost attention, narrow ones padding."""
LAYOUTS = ("mask", "positions", "masks", "padded", "single")
"""How rows share a sequence.

`mask`: one attention mask for all layers keeps them apart.
`positions`: positions that restart say where rows begin, and the model makes masks of them.
`masks`: those masks, one for each kind of layer, are made for the model.
`padded`: a sequence holds one row. `single`: a forward pass holds one row.
"""


class TokenRow(Protocol):
    """What is packed: one row in the student's tokens."""

    @property
    def tokens(self) -> npt.NDArray[np.integer]: ...

    @property
    def rows(self) -> tuple[RowInfo, ...]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What one forward pass needs."""

    tokens_BT: torch.Tensor
    """int64 token ids."""
    position_ids_BT: torch.Tensor | None
    """int64 position ids that restart at each row; None where each bin holds one row."""
    attention_mask_B1TT: torch.Tensor | None
    """bool, True where a place may look; None where each bin holds one row and plain causal attention does."""
    index_P: torch.Tensor
    """int64 places, flattened over bins, that predict a token."""
    targets: Targets | CrossTargets
    """What they predict."""
    rows: tuple[RowInfo, ...]
    """The rows, in the order of their positions."""
    row_positions: tuple[int, ...]
    """Number of positions with a target of each row."""
    aligned: CrossRows | None = None
    """How the rows were aligned, where the student has another tokenizer."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of terms of each part of a loss."""
        if isinstance(self.targets, CrossTargets):
            return self.targets.counts
        return {"kd": self.num_positions, "ce": self.num_positions}

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


def groups(lengths: list[int], *, micro_tokens: int, layout: str = "mask") -> list[slice]:
    """Return consecutive slices of rows that hold at most `micro_tokens` places each, or a single longer row.

    Padding counts where each row has a sequence of its own.
    """
    if layout == "single":
        return [slice(i, i + 1) for i in range(len(lengths))]
    found, start, held, longest = [], 0, 0, 0
    for i, length in enumerate(lengths):
        longest = max(longest, length)
        places = longest * (i + 1 - start) if layout == "padded" else held + length
        if held and places > micro_tokens:
            found.append(slice(start, i))
            start, held, longest = i, 0, length
        held += length
    if lengths:
        found.append(slice(start, len(lengths)))
    return found


def bins(lengths: list[int], *, widest: int | None = None) -> tuple[list[list[int]], int]:
    """Return rows by bin, and the bins' width: the narrowest multiple of the longest row that wastes little.

    First fit, longest rows first; a pure function of the lengths. A single bin of all rows wastes nothing, so the
    search ends. Bins of at most `widest` places may waste more.
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
        place = next((b for b, free in enumerate(room) if free >= lengths[i]), len(room))
        if place == len(room):
            filled.append([])
            room.append(capacity)
        filled[place].append(i)
        room[place] -= lengths[i]
    return filled


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrangement:
    """Rows in sequences: the inputs of a forward pass."""

    tokens_BT: torch.Tensor
    position_ids_BT: torch.Tensor | None
    attention_mask_B1TT: torch.Tensor | None
    """These three are as in `Batch`."""
    starts: npt.NDArray[np.int64]
    """Place, flattened over bins, at which each row starts."""


def arrange(rows: Sequence[npt.NDArray[np.integer]], *, layout: str = "mask", widest: int | None = None) -> Arrangement:
    """Return token ids of rows as sequences, in one of `LAYOUTS`, of at most `widest` places where rows share them."""
    lengths = [len(row) for row in rows]
    alone = layout in ("padded", "single")
    filled, width = ([[i] for i in range(len(rows))], max(lengths)) if alone else bins(lengths, widest=widest)
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
        attention_mask_B1TT=_within_rows(owner_BT) if shared and layout == "mask" else None,
        starts=starts,
    )


def pack(
    rows: Sequence[TokenRow],
    targets: Targets | CrossTargets,
    *,
    skip: int = 0,
    aligned: CrossRows | None = None,
    layout: str = "mask",
    widest: int | None = None,
) -> Batch:
    """Return one batch of `rows` (chunks of one row); `targets` are theirs, in their order, without `skip` each."""
    lengths = [len(row.tokens) for row in rows]
    found = arrange([row.tokens for row in rows], layout=layout, widest=widest)
    index_P = np.concatenate([found.starts[i] + np.arange(skip, n - 1) for i, n in enumerate(lengths)])
    return Batch(
        tokens_BT=found.tokens_BT,
        position_ids_BT=found.position_ids_BT,
        attention_mask_B1TT=found.attention_mask_B1TT,
        index_P=torch.from_numpy(index_P),
        targets=targets,
        rows=tuple(row.rows[0] for row in rows),
        row_positions=tuple(max(0, n - 1 - skip) for n in lengths),
        aligned=aligned,
    )


def empty_batch(*, cross: bool = False) -> Batch:
    """Return a batch of one token that predicts nothing: for a rank with fewer batches than the others."""
    token, none = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(0)
    ids, flags, numbers = none.long()[:, None], none.bool()[:, None], none[:, None]
    nothing = Targets(
        ids_PK=ids,
        valid_PK=flags,
        head_PK=flags,
        teacher_PK=numbers,
        weight_PK=numbers,
        tail_P=none,
        bucket_P=none,
        constant_P=none,
        top_P=none.long(),
    )
    return Batch(
        tokens_BT=token,
        position_ids_BT=None,
        attention_mask_B1TT=None,
        index_P=none.long(),
        targets=no_targets() if cross else nothing,
        rows=(),
        row_positions=(),
    )


def _within_rows(owner_BT: np.ndarray) -> torch.Tensor:
    owner = torch.from_numpy(owner_BT)
    causal_TT = torch.ones(owner.shape[1], owner.shape[1], dtype=torch.bool).tril()
    return ((owner[:, :, None] == owner[:, None, :]) & causal_TT)[:, None]
