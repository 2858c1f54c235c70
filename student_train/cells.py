"""Which events can two vocabularies both measure? Sets of continuations by the bytes that they begin with.

At a shared boundary a teacher's token says how the text goes on. Its *root* is a byte string that a student's token
has too: the token's own bytes, or the first of the student's tokens of these bytes. All student ids that begin with a
root are one range of the vocabulary in byte order. The ranges of a position's roots are nested or apart, so each root
has a *cell*: its range without the ranges nested in it, "the text goes on with this root and no longer one". What is in
no range (special ids, shorter strings) is the cell OTHER. Both models give each cell a probability from one softmax.

Only the head makes cells: a partition that depended on the draws would make the objective improper. Draws add their
share of the tail to the innermost cell that holds their root, else to OTHER, which keeps the masses unbiased. Their
error: teacher tokens that are shorter than a root count in OTHER, as do tails without draws.

`matched` is the conservative form of the literature: one cell for each teacher token whose very bytes the student has
too, blanks, digits and line breaks left out, all else in OTHER; no draws.

Shapes: U teacher ids, B boundaries, K roots of a boundary (padded), V student ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from student_train.vocabulary import Vocabulary

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

_DIGITS = frozenset(b"0123456789")


@dataclass(frozen=True)
class Roots:
    """The root of each teacher id, as a range of the student's ids in byte order."""

    root_U: Int64
    """Number of the root, -1 for ids without one."""
    low_R: Int64
    """First id of the root's range, ascending, all different."""
    high_R: Int64
    """One past its last id."""

    @cached_property
    def low_U(self) -> Int64:
        """[U] first id of each token's range, -1 for none."""
        return np.where(self.root_U < 0, -1, self.low_R[self.root_U])

    @cached_property
    def high_U(self) -> Int64:
        """[U] one past its last id, -1 for none."""
        return np.where(self.root_U < 0, -1, self.high_R[self.root_U])


def prefix_roots(strings: list[bytes], student: Vocabulary) -> Roots:
    """Return the roots of the teacher's ids, whose bytes are `strings`."""
    own = set(student.strings)
    roots = [raw if raw in own else None for raw in strings]
    unknown = [u for u, root in enumerate(roots) if root is None and strings[u]]
    whole = []
    for u in unknown:
        try:
            whole.append((u, strings[u].decode()))
        except UnicodeDecodeError:
            roots[u] = strings[u][:1]  # a part of a character
    # A dummy space would hide what a text begins with; none comes after a line feed.
    before = "\n" if student.has_dummy else ""
    for (u, _), ids in zip(whole, student.encode([before + text for _, text in whole]), strict=True):
        at = -len(before) - student.has_dummy
        for token in ids:
            at += len(student.strings[token])
            if at > 0:
                roots[u] = strings[u][:at]
                break
    return _numbered([_range(student, root, exact=False) for root in roots])


def exact_roots(strings: list[bytes], student: Vocabulary) -> Roots:
    """Return the ids of equal bytes, for `matched`: none for blanks, digits and what the student lacks."""
    ranges = []
    for raw in strings:
        excluded = not raw.strip() or b"\n" in raw or bool(_DIGITS.intersection(raw))
        ranges.append(None if excluded else _range(student, raw, exact=True))
    return _numbered(ranges)


def _range(student: Vocabulary, root: bytes | None, *, exact: bool) -> tuple[int, int] | None:
    if not root:
        return None
    low, high = student.equal_to(root) if exact else student.range_of(root)
    return (low, high) if low < high else None


def _numbered(ranges: list[tuple[int, int] | None]) -> Roots:
    known = sorted({found for found in ranges if found is not None})
    number = {found: i for i, found in enumerate(known)}
    return Roots(
        root_U=np.array([-1 if found is None else number[found] for found in ranges], dtype=np.int64),
        low_R=np.array([low for low, _ in known], dtype=np.int64),
        high_R=np.array([high for _, high in known], dtype=np.int64),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """Cells of B boundaries and the teacher's mass in each. Columns by byte order, so outer ranges before inner."""

    low_BK: Int64
    """First id of a root's range in the student's byte order; V for padding."""
    high_BK: Int64
    """One past its last."""
    mass_BK: Float32
    """The teacher's mass in the root's cell."""
    other_B: Float32
    """The teacher's mass in no cell."""
    top_B: Int64
    """Column of the teacher's likeliest token, -1 if it is in no cell."""


def partition(
    roots: Roots,
    *,
    boundaries: int,
    vocab_size: int,
    head: tuple[Int64, Int64, Float64],
    top: tuple[Int64, Int64],
    draws: tuple[Int64, Int64, Float64] | None = None,
) -> Partition:
    """Return the cells of `boundaries` boundaries.

    `head` and `draws` are (boundary, teacher id, weight) of entries, in any order; `top` is (boundary, teacher id) of
    the likeliest ones; `vocab_size` is the student's.
    """
    at, ids, weight = head
    root = roots.root_U[ids]
    known = root >= 0
    at, root, weight = at[known], root[known], weight[known]
    width = len(roots.low_R) + 1
    key, place = np.unique(at * width + root, return_inverse=True)
    mass: Float64 = np.bincount(place, weights=weight, minlength=len(key))
    cell_at, cell_root = key // width, key % width
    count = np.bincount(cell_at, minlength=boundaries)
    start = np.cumsum(count) - count
    column = np.arange(len(key)) - start[cell_at]
    low, high = roots.low_R[cell_root], roots.high_R[cell_root]
    if draws is not None and len(key):
        mass = mass + _drawn(roots, draws, low=low, high=high, start=start, count=count)

    K = max(1, int(count.max(initial=0)))
    low_BK = np.full((boundaries, K), vocab_size, dtype=np.int64)
    high_BK = np.full((boundaries, K), vocab_size, dtype=np.int64)
    mass_BK = np.zeros((boundaries, K), dtype=np.float32)
    low_BK[cell_at, column] = low
    high_BK[cell_at, column] = high
    mass_BK[cell_at, column] = mass
    held = np.bincount(cell_at, weights=mass, minlength=boundaries)
    top_B = np.full(boundaries, -1, dtype=np.int64)
    top_at, top_id = top
    top_root = roots.root_U[top_id]
    rooted = top_root >= 0
    top_at, top_key = top_at[rooted], top_at[rooted] * width + top_root[rooted]
    found = np.searchsorted(key, top_key)
    top_B[top_at] = column[found]
    return Partition(
        low_BK=low_BK,
        high_BK=high_BK,
        mass_BK=mass_BK,
        other_B=np.maximum(1.0 - held, 0.0).astype(np.float32),
        top_B=top_B,
    )


def _drawn(
    roots: Roots, draws: tuple[Int64, Int64, Float64], *, low: Int64, high: Int64, start: Int64, count: Int64
) -> Float64:
    """Return what draws add to each cell: their weight goes to the innermost range that holds their own."""
    at, ids, weight = draws
    usable = (roots.root_U[ids] >= 0) & (count[at] > 0)
    at, ids, weight = at[usable], ids[usable], weight[usable]
    mine, end = roots.low_U[ids], roots.high_U[ids]
    # Every pair of a draw and a cell of its boundary; the last that holds it is the innermost.
    pairs = count[at]
    draw = np.repeat(np.arange(len(at)), pairs)
    cell = np.arange(int(pairs.sum())) - np.repeat(np.cumsum(pairs) - pairs, pairs) + np.repeat(start[at], pairs)
    holds = (low[cell] <= mine[draw]) & (end[draw] <= high[cell])
    inner = np.full(len(at), -1, dtype=np.int64)
    inner[draw[holds]] = cell[holds]  # ascending, so the last write is the innermost
    held = inner >= 0
    added: Float64 = np.bincount(inner[held], weights=weight[held], minlength=len(low)).astype(np.float64)
    return added
