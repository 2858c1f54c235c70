"""Targets of a student with another tokenizer: aligned rows as tensors for `fused_linear.py`.

Shapes: P student positions, W word spans, B boundaries with cells, K roots of a boundary (padded), U teacher ids,
R rows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch

from shards.format.chunk import Chunk
from student_train.choices import ACROSS
from student_train.cross_tokenizer.alignment import Alignment, StudentRow, Turns, align, word_spans
from student_train.cross_tokenizer.prefix_cells import Partition, Roots, exact_roots, partition, prefix_roots
from student_train.cross_tokenizer.vocabulary import Vocabulary

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

_PER_POSITION = ("label_logp", "whitespace_logp", "tail_mass")
"""Records of a position that are read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossTargets:
    """Targets of a batch, on one device."""

    label_P: torch.Tensor
    """int64 token that each position predicts."""
    first_W: torch.Tensor
    """int64 position that predicts the first token of a span."""
    end_W: torch.Tensor
    """int64 position that predicts after the span. Spans are in order and do not overlap."""
    teacher_W: torch.Tensor
    """float32 log of the teacher's probability of the span followed by whitespace."""
    at_B: torch.Tensor
    """int64 position that predicts after a boundary, ascending."""
    low_BK: torch.Tensor
    """int64, as in `Partition`; not used by `uld`."""
    high_BK: torch.Tensor
    """int64, as in `Partition`; not used by `uld`."""
    mass_BK: torch.Tensor
    """float32, as in `Partition`; for `uld` the probabilities of the head, largest first."""
    other_B: torch.Tensor
    """float32, as in `Partition`."""
    top_B: torch.Tensor
    """int64 column of the teacher's most probable token; -1 for none."""

    def to(self, device: torch.device) -> CrossTargets:
        """Return the targets on `device`."""
        return replace(self, **{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    @property
    def counts(self) -> dict[str, int]:
        """Number of terms of each part of the loss."""
        return {"ce": len(self.label_P), "alm": len(self.first_W), **dict.fromkeys(ACROSS[1:], len(self.at_B))}


def no_targets() -> CrossTargets:
    """Return targets of no position."""
    ids, numbers = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    return CrossTargets(
        label_P=ids,
        first_W=ids,
        end_W=ids,
        teacher_W=numbers,
        at_B=ids,
        low_BK=ids[:, None],
        high_BK=ids[:, None],
        mass_BK=numbers[:, None],
        other_B=numbers,
        top_B=ids,
    )


@dataclass(frozen=True)
class TokenizerPair:
    """Tables of the teacher's and the student's vocabularies."""

    strings: list[bytes]
    """Bytes of the teacher's ids [U]; b"" for ids that are no text."""
    student: Vocabulary
    """The student's vocabulary."""
    distribution: str | None
    """The part of the loss that compares distributions: `cells`, `matched`, `uld` or None."""
    roots: Roots
    """Roots of the teacher's ids."""
    exact: Roots | None = None
    """Roots of `matched`, in the order of `roots`."""
    head_only: bool = False
    """Whether draws make no cells of their own; to measure, see `prefix_cells.py`."""
    turns: Turns | None = None
    """How responses begin and end; None for documents."""

    @classmethod
    def of(
        cls, strings: list[bytes], student: Vocabulary, losses: tuple[str, ...], *, turns: Turns | None = None
    ) -> TokenizerPair:
        """Return the tables for the parts `losses`, at most one of which compares distributions."""
        kinds = [name for name in losses if name in ACROSS[1:]]
        assert len(kinds) <= 1, f"two losses share one kind of target: {kinds}"
        kind = kinds[0] if kinds else None
        ends: dict[int, int] = {}
        if turns is not None:
            ends = turns.student_of
            strings = [b"" if u in ends else raw for u, raw in enumerate(strings)]
            student = student.with_end(turns.template.end_of_turn)
        roots = prefix_roots(strings, student, ends=ends)
        exact = exact_roots(strings, student, roots, ends=ends) if kind == "matched" else None
        return cls(strings=strings, student=student, distribution=kind, roots=roots, exact=exact, turns=turns)

    def to_measure(self) -> TokenizerPair:
        """Return the tables of the KL on the head's cells, which every run measures."""
        return replace(self, distribution="cells", exact=None, head_only=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossRows:
    """Rows in the student's tokens, and their targets."""

    rows: list[StudentRow]
    """R rows."""
    targets: CrossTargets
    """Targets of their positions."""
    bytes_R: Int64
    """Bytes of text that the positions of a row predict."""
    row_W: Int64
    """Row of each span."""
    row_B: Int64
    """Row of each boundary with cells."""
    left_out: Counter[str]
    """Counts of left-out rows and tokens, `Alignment.counts`."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of terms of each part of the loss."""
        return self.targets.counts

    def to(self, device: torch.device) -> CrossRows:
        """Return the rows with their targets on `device`."""
        return replace(self, targets=self.targets.to(device))


def no_rows() -> CrossRows:
    """Return no row."""
    numbers = np.zeros(0, dtype=np.int64)
    return CrossRows(rows=[], targets=no_targets(), bytes_R=numbers, row_W=numbers, row_B=numbers, left_out=Counter())


def cross_targets(rows: list[Chunk], tables: TokenizerPair, *, max_tokens: int = 2**31) -> CrossRows:
    """Return rows in the student's tokens, with targets.

    Args:
        rows: Chunks of one row each.
        tables: Tables of both vocabularies.
        max_tokens: Most tokens of a row that the student reads.
    """
    alignment = align(rows, tables.strings, tables.student, turns=tables.turns, max_tokens=max_tokens)
    records = {name: np.concatenate([getattr(row, name) for row in rows]) for name in _PER_POSITION}
    spans = word_spans(alignment, label_logp=records["label_logp"], whitespace_logp=records["whitespace_logp"])
    used = _boundaries_with_cells(alignment, tables)
    cells = _cells(alignment.teacher_B[used], rows, tables, tail_mass=records["tail_mass"].astype(np.float64))
    return CrossRows(
        rows=alignment.rows,
        targets=CrossTargets(
            label_P=torch.from_numpy(alignment.label_P),
            first_W=torch.from_numpy(spans.first_W),
            end_W=torch.from_numpy(spans.end_W),
            teacher_W=torch.from_numpy(spans.teacher_W),
            at_B=torch.from_numpy(alignment.student_B[used]),
            low_BK=torch.from_numpy(cells.low_BK),
            high_BK=torch.from_numpy(cells.high_BK),
            mass_BK=torch.from_numpy(cells.mass_BK),
            other_B=torch.from_numpy(cells.other_B),
            top_B=torch.from_numpy(cells.top_B),
        ),
        bytes_R=alignment.bytes_R,
        row_W=alignment.row_B[spans.boundary_W],
        row_B=alignment.row_B[used],
        left_out=alignment.counts,
    )


def _boundaries_with_cells(alignment: Alignment, tables: TokenizerPair) -> Int64:
    """Return the numbers of the boundaries that get cells."""
    if tables.distribution is None:
        return np.zeros(0, dtype=np.int64)
    if tables.distribution != "matched":
        return np.arange(len(alignment.teacher_B))
    # With one token on each side up to the next boundary, both tokens have the same bytes. The end of a turn is one.
    is_single = (np.diff(alignment.teacher_B) == 1) & (np.diff(alignment.student_B) == 1)
    is_single &= np.diff(alignment.row_B) == 0
    return np.flatnonzero(np.append(is_single, False)[: len(alignment.teacher_B)] | alignment.end_B)


def _cells(teacher_B: Int64, rows: list[Chunk], tables: TokenizerPair, *, tail_mass: Float64) -> Partition:
    """Return the partition, or for `uld` the sorted head, at the teacher's positions `teacher_B`."""
    boundary_of = np.full(len(tail_mass), -1, dtype=np.int64)
    boundary_of[teacher_B] = np.arange(len(teacher_B))
    head_at, head_ids, head_probs = _entries(rows, boundary_of, "head_starts", "head_ids", "head_probs")
    if tables.distribution == "uld":
        return _sorted_head(head_at, head_probs, len(teacher_B))
    first = np.flatnonzero(np.diff(head_at, prepend=-1))
    draws = None
    if tables.distribution == "cells":
        draw_at, draw_ids, _ = _entries(rows, boundary_of, "draw_starts", "draw_ids", None)
        num_draws_B = np.bincount(draw_at, minlength=len(teacher_B))
        draws = draw_at, draw_ids, tail_mass[teacher_B[draw_at]] / num_draws_B[draw_at]
    return partition(
        tables.exact or tables.roots,
        boundaries=len(teacher_B),
        vocab_size=len(tables.student.strings),
        head=(head_at, head_ids, head_probs.astype(np.float64)),
        top=(head_at[first], head_ids[first]),
        draws=draws,
        head_only=tables.head_only,
    )


def _entries(
    rows: list[Chunk], boundary_of: Int64, starts: str, ids: str, values: str | None
) -> tuple[Int64, Int64, npt.NDArray[np.float32]]:
    """Return boundary, id and value of the entries of all rows at positions with a boundary, in their order.

    `boundary_of` is the boundary of each teacher position, -1 for none.
    """
    counts = np.concatenate([np.diff(getattr(row, starts)) for row in rows])
    boundary = np.repeat(boundary_of, counts)
    used = boundary >= 0
    used_ids = np.concatenate([getattr(row, ids) for row in rows])[used].astype(np.int64)
    value = np.zeros(0, np.float32)
    if values is not None:
        value = np.concatenate([getattr(row, values) for row in rows])[used]
    return boundary[used], used_ids, value


def _sorted_head(boundary: Int64, probs: npt.NDArray[np.float32], num_boundaries: int) -> Partition:
    count_B = np.bincount(boundary, minlength=num_boundaries)
    column = np.arange(len(boundary)) - (np.cumsum(count_B) - count_B)[boundary]
    mass_BK = np.zeros((num_boundaries, max(1, int(count_B.max(initial=0)))), dtype=np.float32)
    mass_BK[boundary, column] = probs
    no_ids_BK = np.zeros(mass_BK.shape, dtype=np.int64)
    return Partition(
        low_BK=no_ids_BK,
        high_BK=no_ids_BK,
        mass_BK=mass_BK,
        other_B=np.maximum(1.0 - mass_BK.sum(1), 0.0).astype(np.float32),
        top_B=np.full(num_boundaries, -1, dtype=np.int64),
    )
