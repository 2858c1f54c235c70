"""Events that two vocabularies both measure: sets of continuations with a common byte prefix.

At a shared boundary a token of the teacher begins the continuation of the text. Its *root* is a byte string that is a
token of the student too: the token's own bytes, or the first of the student's tokens for these bytes. All student ids
that begin with a root are its *range*; two ranges are nested or disjoint. The models are compared on *cells*, disjoint
sets of student ids:

  - each root of the head has its range, without the ranges of other head roots nested in it: "the text continues with
    this root and not with a longer one of the head". A student's token that is longer than the teacher's is in it.
  - an id in no range of the head is in the cell of the longest root, among those of all teacher ids, that it begins
    with.
  - all other ids (special ids, strings that begin with no root) are in the cell OTHER.

Both models give each cell a probability from one softmax. The head and the two vocabularies determine the cells; the
draws do not. So the share that a draw has of the tail, added to the cell of its root, keeps the mass of each cell
unbiased. It keeps the KL unbiased too, which is linear in that mass except for a term without the student. Only cells
with mass are evaluated; OTHER takes the rest of the student's mass. With the head alone (to measure, not to train),
draws in no range of the head count in OTHER. Then the KL is a lower bound of the KL of the continuations.

`matched` is the conservative form of the literature: one cell for each teacher token that has the exact bytes of a
student's token, without blanks, digits and line breaks. All else is in OTHER, and draws are not used.

In responses the teacher's ids that end a turn have a root too: the student's id that does, which is no text.

Shapes: U teacher ids, R roots, B boundaries, K roots of a boundary (padded), V student ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from student_train.cross_tokenizer.vocabulary import Vocabulary

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

_NO_ENDS: Mapping[int, int] = MappingProxyType({})
_DIGITS = frozenset(b"0123456789")


@dataclass(frozen=True)
class Roots:
    """The root of each teacher id, as a range of the student's ids in `order_V`."""

    order_V: Int64
    """Student ids by the longest root that they begin with, then by bytes: the ids of a root, then those of the roots
    nested in it. Ids without a root come first."""
    root_U: Int64
    """Root of each teacher id; -1 for ids without one."""
    low_R: Int64
    """First id of the root's range, ascending."""
    own_R: Int64
    """One past the last id of which it is the longest root."""
    high_R: Int64
    """One past the last id of its range."""

    @cached_property
    def rank_V(self) -> Int64:
        """Place of each student id in `order_V`."""
        rank_V = np.empty_like(self.order_V)
        rank_V[self.order_V] = np.arange(len(rank_V))
        return rank_V

    def holds(self, teacher: Int64, student: Int64) -> npt.NDArray[np.bool_]:
        """Return, for pairs of ids, whether the student's id is in the range of the teacher's root."""
        root, rank = self.root_U[teacher], self.rank_V[student]
        return (root >= 0) & (self.low_R[root] <= rank) & (rank < self.high_R[root])


def prefix_roots(strings: list[bytes], student: Vocabulary, *, ends: Mapping[int, int] = _NO_ENDS) -> Roots:
    """Return the roots of the teacher's ids.

    Args:
        strings: Bytes of each teacher id; b"" for ids that are no text.
        student: The student's vocabulary.
        ends: The student's id, which is no text, for each teacher id that ends a turn.
    """
    roots = _root_strings(strings, student)
    ranges = [student.range_of(root) if root else (0, 0) for root in roots]
    for u, v in ends.items():
        place = int(np.flatnonzero(student.order == v)[0])
        ranges[u] = (place, place + 1)
    low_R, high_R, root_U = _numbered(ranges)
    longest_V = np.full(len(student.strings), -1, dtype=np.int64)
    for root, (low, high) in enumerate(zip(low_R, high_R, strict=True)):
        longest_V[low:high] = root  # outer ranges come first, so inner ones overwrite them
    place_V = np.argsort(longest_V, kind="stable")
    sorted_V = longest_V[place_V]
    new_low_R = np.searchsorted(sorted_V, np.arange(len(low_R)))
    return Roots(
        order_V=student.order[place_V],
        root_U=root_U,
        low_R=new_low_R,
        own_R=np.searchsorted(sorted_V, np.arange(len(low_R)), side="right"),
        high_R=new_low_R + high_R - low_R,
    )


def _root_strings(strings: list[bytes], student: Vocabulary) -> list[bytes | None]:
    """Return the root of each teacher id as bytes."""
    known = set(student.strings)
    # Roots of blanks depend on what follows: GPT-2's rule leaves a word its last space, and a line its last line feed.
    roots = [raw if raw in known and raw.strip() else None for raw in strings]
    to_encode = []
    for u, root in enumerate(roots):
        if root is None and strings[u]:
            try:
                to_encode.append((u, strings[u].decode() + "x" * (not strings[u].strip())))
            except UnicodeDecodeError:  # a part of a character
                roots[u] = strings[u] if strings[u] in known else strings[u][:1]
    # A dummy space would hide the first bytes of a text; after a line feed there is none.
    before = "\n" if student.has_dummy else ""
    for (u, _), ids in zip(to_encode, student.encode([before + text for _, text in to_encode]), strict=True):
        at = -len(before) - student.has_dummy
        for token in ids:
            at += len(student.strings[token])
            if at > 0:
                roots[u] = strings[u][:at]
                break
    return roots


def exact_roots(
    strings: list[bytes],
    student: Vocabulary,
    roots: Roots,
    *,
    ends: Mapping[int, int] = _NO_ENDS,
    all_kinds: bool = False,
) -> Roots:
    """Return the student's ids with the same bytes as each teacher id, in the order of `roots`, for `matched`.

    Args:
        strings: Bytes of each teacher id; b"" for ids that are no text.
        student: The student's vocabulary.
        roots: The roots of `prefix_roots`.
        ends: As for `prefix_roots`.
        all_kinds: Whether blanks, digits and line feeds have roots too.
    """
    ranges = []
    for raw in strings:
        excluded = not raw.strip() or b"\n" in raw or bool(_DIGITS.intersection(raw))
        low, high = student.equal_to(raw) if raw and (all_kinds or not excluded) else (0, 0)
        # Ids with equal bytes are neighbours in either order.
        start = int(roots.rank_V[student.order[low]]) if low < high else 0
        ranges.append((start, start + high - low))
    for u, v in ends.items():
        ranges[u] = (int(roots.rank_V[v]), int(roots.rank_V[v]) + 1)
    low_R, high_R, root_U = _numbered(ranges)
    return Roots(order_V=roots.order_V, root_U=root_U, low_R=low_R, own_R=high_R, high_R=high_R)


def _numbered(ranges: list[tuple[int, int]]) -> tuple[Int64, Int64, Int64]:
    """Return start and end of the distinct ranges, outer before inner, and the number of each range; -1 if empty."""
    distinct = sorted({(low, high) for low, high in ranges if low < high}, key=lambda bounds: (bounds[0], -bounds[1]))
    number = {bounds: i for i, bounds in enumerate(distinct)}
    low_R, high_R = np.array(distinct, dtype=np.int64).reshape(-1, 2).T
    return low_R, high_R, np.array([number.get(bounds, -1) for bounds in ranges], dtype=np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """Cells of B boundaries, and the teacher's mass in each; columns in the order of `Roots.low_R`."""

    low_BK: Int64
    """First id of the cell's range in `Roots.order_V`, nested ranges included; V for padding."""
    high_BK: Int64
    """One past its last id."""
    mass_BK: Float32
    """The teacher's mass in the cell."""
    other_B: Float32
    """The teacher's mass in OTHER."""
    top_B: Int64
    """Column of the teacher's most probable token; -1 if it is in no cell."""


def partition(
    roots: Roots,
    *,
    boundaries: int,
    vocab_size: int,
    head: tuple[Int64, Int64, Float64],
    top: tuple[Int64, Int64],
    draws: tuple[Int64, Int64, Float64] | None = None,
    head_only: bool = False,
) -> Partition:
    """Return the cells that have mass.

    Args:
        roots: Roots of the teacher's ids.
        boundaries: B.
        vocab_size: V.
        head: Boundary, teacher id and probability of the entries of heads, in any order.
        top: Boundary and teacher id of the most probable tokens.
        draws: Boundary, teacher id and weight of draws; None without draws.
        head_only: Whether draws make no cells of their own.
    """
    keys = _Keys(roots)
    key, mass = keys.sum(head)
    in_head = np.ones(len(key), dtype=np.bool_)
    if draws is not None and len(draws[0]):
        key, mass, in_head = _with_draws(keys, key, mass, draws, head_only=head_only)
    cell_at, cell_root = keys.boundary(key), keys.root(key)
    count_B = np.bincount(cell_at, minlength=boundaries)
    start_B = np.cumsum(count_B) - count_B
    column = np.arange(len(key)) - start_B[cell_at]
    K = max(1, int(count_B.max(initial=0)))
    low_BK = np.full((boundaries, K), vocab_size, dtype=np.int64)
    high_BK = np.full((boundaries, K), vocab_size, dtype=np.int64)
    mass_BK = np.zeros((boundaries, K), dtype=np.float32)
    low_BK[cell_at, column] = roots.low_R[cell_root]
    high_BK[cell_at, column] = np.where(in_head, roots.high_R[cell_root], roots.own_R[cell_root])
    mass_BK[cell_at, column] = mass
    mass_B = np.bincount(cell_at, weights=mass, minlength=boundaries)
    top_B = np.full(boundaries, -1, dtype=np.int64)
    top_at, top_key = keys.of(*top)
    top_B[top_at] = column[np.searchsorted(key, top_key)]
    return Partition(
        low_BK=low_BK,
        high_BK=high_BK,
        mass_BK=mass_BK,
        other_B=np.maximum(1.0 - mass_B, 0.0).astype(np.float32),
        top_B=top_B,
    )


def _with_draws(
    keys: _Keys, key: Int64, mass: Float64, draws: tuple[Int64, Int64, Float64], *, head_only: bool
) -> tuple[Int64, Float64, npt.NDArray[np.bool_]]:
    """Return keys and masses of the head's cells with the draws added, and which cells are the head's."""
    drawn_key, drawn_mass = keys.sum(draws)
    inner = keys.innermost(key, drawn_key)
    is_held = inner >= 0
    mass = mass + np.bincount(inner[is_held], weights=drawn_mass[is_held], minlength=len(key))
    in_head = np.ones(len(key), dtype=np.bool_)
    if head_only:
        return key, mass, in_head
    is_free = ~is_held & (keys.roots.own_R > keys.roots.low_R)[keys.root(drawn_key)]
    key = np.concatenate((key, drawn_key[is_free]))
    mass = np.concatenate((mass, drawn_mass[is_free]))
    order = np.argsort(key, kind="stable")
    return key[order], mass[order], order < len(in_head)


class _Keys:
    """Pairs (boundary, root) as integers, so that pairs sort and search like numbers."""

    def __init__(self, roots: Roots) -> None:
        self.roots = roots
        self._bits = len(roots.low_R).bit_length()

    def of(self, boundary: Int64, ids: Int64) -> tuple[Int64, Int64]:
        """Return boundary and key of the teacher ids that have a root."""
        root = self.roots.root_U[ids]
        has_root = root >= 0
        return boundary[has_root], boundary[has_root] << self._bits | root[has_root]

    def boundary(self, key: Int64) -> Int64:
        return key >> self._bits

    def root(self, key: Int64) -> Int64:
        return key & ((1 << self._bits) - 1)

    def sum(self, entries: tuple[Int64, Int64, Float64]) -> tuple[Int64, Float64]:
        """Return the distinct keys of (boundary, teacher id, weight), ascending, and the weight of each."""
        boundary, ids, weight = entries
        _, all_keys = self.of(boundary, ids)
        key, place = np.unique(all_keys, return_inverse=True)
        has_root = self.roots.root_U[ids] >= 0
        mass: Float64 = np.bincount(place, weights=weight[has_root], minlength=len(key)).astype(np.float64)
        return key, mass

    def innermost(self, head: Int64, keys: Int64) -> Int64:
        """Return, for each key, the last key of `head` with a range that holds the key's root; -1 if none.

        `head` is ascending.
        """
        size = len(self.roots.order_V).bit_length()
        head_high = self.roots.high_R[self.root(head)]
        high = self.roots.high_R[self.root(keys)]
        goal = self.boundary(keys) << size | high
        # The running maximum of the ends excludes most draws, which are in no range and need no search.
        reach = np.maximum.accumulate(self.boundary(head) << size | head_high)
        inner: Int64 = np.searchsorted(head, keys, side="right").astype(np.int64) - 1
        is_held = inner >= 0
        is_held[is_held] = reach[inner[is_held]] >= goal[is_held]
        inner[~is_held] = -1
        left = np.flatnonzero(is_held)
        while len(left):  # one step outwards; ranges are sorted by start, so the first that reaches far enough holds it
            left = left[head_high[inner[left]] < high[left]]
            inner[left] -= 1
        return inner
