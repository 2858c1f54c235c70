"""What does a student with another tokenizer aim at? Rows aligned in bytes, as tensors for `cross_loss.py`.

Shapes: P student positions, C chunks, B boundaries with cells, K roots of a boundary (padded), U teacher ids.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch

from shards.format.chunk import Chunk
from student_train.choices import ACROSS
from student_train.cross_tokenizer.alignment import Alignment, StudentRow, align, word_spans
from student_train.cross_tokenizer.prefix_cells import Partition, Roots, exact_roots, partition, prefix_roots
from student_train.cross_tokenizer.vocabulary import Vocabulary

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossTargets:
    """Targets of a batch; all tensors on one device."""

    label_P: torch.Tensor
    """int64; the token that each position predicts."""
    first_W: torch.Tensor
    """int64; position that predicts a chunk's first token."""
    end_W: torch.Tensor
    """int64; position that predicts what follows the chunk; chunks are in order and do not overlap."""
    teacher_W: torch.Tensor
    """float32; log of the teacher's probability of the chunk, whitespace after it included."""
    at_B: torch.Tensor
    """int64; position that predicts after a boundary, ascending."""
    low_BK: torch.Tensor
    """int64; see `cells.Partition`. For `uld`, unused."""
    high_BK: torch.Tensor
    """int64."""
    mass_BK: torch.Tensor
    """float32; for `uld`, the head's probabilities, largest first."""
    other_B: torch.Tensor
    """float32."""
    top_B: torch.Tensor
    """int64; column of the teacher's likeliest token, -1 for none."""

    def to(self, device: torch.device) -> CrossTargets:
        """Return the targets on `device`."""
        return replace(self, **{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    @property
    def counts(self) -> dict[str, int]:
        """Number of terms of each part of the loss."""
        cells = len(self.at_B)
        return {"ce": len(self.label_P), "alm": len(self.first_W), **dict.fromkeys(ACROSS[1:], cells)}


def no_targets() -> CrossTargets:
    """Return targets of no position."""
    none, number = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    return CrossTargets(
        label_P=none,
        first_W=none,
        end_W=none,
        teacher_W=number,
        at_B=none,
        low_BK=none[:, None],
        high_BK=none[:, None],
        mass_BK=number[:, None],
        other_B=number,
        top_B=none,
    )


@dataclass(frozen=True)
class TokenizerPair:
    """What is fixed by two vocabularies and the losses asked for."""

    strings: list[bytes]
    """[U] bytes of the teacher's ids."""
    student: Vocabulary
    distribution: str | None
    """The loss that compares distributions: `cells`, `matched`, `uld` or None."""
    roots: Roots
    """Roots of the teacher's ids."""
    exact: Roots | None = None
    """Those of `matched`, in the order of `roots`."""
    head_only: bool = False
    """Whether draws make no cells: to measure, see `cells.py`."""

    @classmethod
    def of(cls, strings: list[bytes], student: Vocabulary, losses: tuple[str, ...]) -> TokenizerPair:
        """Return the tables for `losses`, of which at most one compares distributions."""
        kinds = [name for name in losses if name in ACROSS[1:]]
        assert len(kinds) <= 1, f"two losses share one kind of target: {kinds}"
        kind = kinds[0] if kinds else None
        roots = prefix_roots(strings, student)
        exact = exact_roots(strings, student, roots) if kind == "matched" else None
        return cls(strings=strings, student=student, distribution=kind, roots=roots, exact=exact)

    def to_measure(self) -> TokenizerPair:
        """Return the tables of the KL on the head's cells, which any run measures."""
        return replace(self, distribution="cells", exact=None, head_only=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossRows:
    """Rows in the student's tokens and their targets."""

    rows: list[StudentRow]
    targets: CrossTargets
    bytes_R: Int64
    """Bytes of text that a row's positions predict."""
    row_W: Int64
    """The row of each chunk."""
    row_B: Int64
    """The row of each boundary with cells."""
    left_out: Counter[str]
    """Counts of what was left out, see `alignment`."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of terms of each part of the loss."""
        return self.targets.counts

    def to(self, device: torch.device) -> CrossRows:
        """Return the rows with their targets on `device`."""
        return replace(self, targets=self.targets.to(device))


def no_rows() -> CrossRows:
    """Return no row."""
    none = np.zeros(0, dtype=np.int64)
    return CrossRows(rows=[], targets=no_targets(), bytes_R=none, row_W=none, row_B=none, left_out=Counter())


def cross_targets(rows: list[Chunk], tables: TokenizerPair, *, max_tokens: int = 2**31) -> CrossRows:
    """Return `rows` (chunks of one row) for the student, which reads at most `max_tokens` tokens of a row."""
    met = align(rows, tables.strings, tables.student, max_tokens=max_tokens)
    records = {name: np.concatenate([getattr(row, name) for row in rows]) for name in _PER_POSITION}
    found = word_spans(met, realised_logp=records["realised_logp"], whitespace_logp=records["whitespace_logp"])
    used = _used(met, rows, tables)
    cells = _cells(met.teacher_B[used], rows, tables, tail=records["tail_mass"].astype(np.float64))
    return CrossRows(
        rows=met.rows,
        targets=CrossTargets(
            label_P=torch.from_numpy(met.label_P),
            first_W=torch.from_numpy(found.first_W),
            end_W=torch.from_numpy(found.end_W),
            teacher_W=torch.from_numpy(found.teacher_W),
            at_B=torch.from_numpy(met.student_B[used]),
            low_BK=torch.from_numpy(cells.low_BK),
            high_BK=torch.from_numpy(cells.high_BK),
            mass_BK=torch.from_numpy(cells.mass_BK),
            other_B=torch.from_numpy(cells.other_B),
            top_B=torch.from_numpy(cells.top_B),
        ),
        bytes_R=met.bytes_R,
        row_W=met.row_B[found.boundary_W],
        row_B=met.row_B[used],
        left_out=met.counts,
    )


_PER_POSITION = ("realised_logp", "whitespace_logp", "tail_mass")


def _used(met: Alignment, rows: list[Chunk], tables: TokenizerPair) -> Int64:
    """Return which boundaries get cells."""
    if tables.distribution is None:
        return np.zeros(0, dtype=np.int64)
    if tables.distribution != "matched":
        return np.arange(len(met.teacher_B))
    # One token on each side up to the next boundary: then both predict the same bytes.
    one = (np.diff(met.teacher_B) == 1) & (np.diff(met.student_B) == 1) & (np.diff(met.row_B) == 0)
    return np.flatnonzero(one)


def _cells(teacher_B: Int64, rows: list[Chunk], tables: TokenizerPair, *, tail: Float64) -> Partition:
    """Return the partition, or for `uld` the sorted head, at the teacher's positions `teacher_B`."""
    number = np.full(len(tail), -1, dtype=np.int64)
    number[teacher_B] = np.arange(len(teacher_B))
    head_at, head_ids, head_p = _entries(rows, number, "head_starts", "head_ids", "head_probs")
    if tables.distribution == "uld":
        return _sorted_head(head_at, head_p, len(teacher_B))
    first = np.flatnonzero(np.diff(head_at, prepend=-1))
    draws = None
    if tables.distribution == "cells":
        draw_at, draw_ids, _ = _entries(rows, number, "draw_starts", "draw_ids", None)
        drawn = np.bincount(draw_at, minlength=len(teacher_B))
        draws = draw_at, draw_ids, tail[teacher_B[draw_at]] / drawn[draw_at]
    return partition(
        tables.exact or tables.roots,
        boundaries=len(teacher_B),
        vocab_size=len(tables.student.strings),
        head=(head_at, head_ids, head_p.astype(np.float64)),
        top=(head_at[first], head_ids[first]),
        draws=draws,
        head_only=tables.head_only,
    )


def _entries(
    rows: list[Chunk], number: Int64, starts: str, ids: str, values: str | None
) -> tuple[Int64, Int64, npt.NDArray[np.float32]]:
    """Return boundary, id and value of the entries at positions that `number` gives a boundary, in their order."""
    counts = np.concatenate([np.diff(getattr(row, starts)) for row in rows])
    at = np.repeat(number, counts)
    here = at >= 0
    found = np.concatenate([getattr(row, ids) for row in rows])[here].astype(np.int64)
    value = np.zeros(0, np.float32)
    if values is not None:
        value = np.concatenate([getattr(row, values) for row in rows])[here]
    return at[here], found, value


def _sorted_head(at: Int64, probs: npt.NDArray[np.float32], boundaries: int) -> Partition:
    count = np.bincount(at, minlength=boundaries)
    column = np.arange(len(at)) - (np.cumsum(count) - count)[at]
    mass_BK = np.zeros((boundaries, max(1, int(count.max(initial=0)))), dtype=np.float32)
    mass_BK[at, column] = probs
    none = np.zeros(mass_BK.shape, dtype=np.int64)
    return Partition(
        low_BK=none,
        high_BK=none,
        mass_BK=mass_BK,
        other_B=np.maximum(1.0 - mass_BK.sum(1), 0.0).astype(np.float32),
        top_B=np.full(boundaries, -1, dtype=np.int64),
    )
