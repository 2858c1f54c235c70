"""Which events can two vocabularies both measure? Sets of continuations by the bytes that they begin with.

At a shared boundary a teacher's token says how the text goes on. Its *root* is a byte string that a student's token
has too: the token's own bytes, or the first of the student's tokens of these bytes. All student ids that begin with a
root are its *range*; two ranges are nested or apart. The teacher's probabilities are compared on *cells*, sets of
student ids that are apart:

  - each root of the head has its range without the ranges of the head's other roots nested in it: "the text goes on
    with this root and no longer one of the head's". What a student writes longer than the teacher falls in there.
  - ids in no range of the head have the cell of the longest root, among those of all teacher ids, that they begin with.
  - what is left (special ids, strings that begin with no root) is the cell OTHER.

Both models give each cell a probability from one softmax. The cells are fixed by the head and the two vocabularies,
not by the draws. So a draw's share of the tail, given to the cell that holds its root, keeps each cell's mass unbiased,
and the KL too, which is linear in it but for a term without the student. Only cells with mass are looked at; OTHER
takes the rest of the student's. Where the head alone is asked for (to measure, not to train), draws in no range of the
head count in OTHER: then the KL is a lower bound of that of what comes next.

`matched` is the conservative form of the literature: one cell for each teacher token whose very bytes the student has
too, blanks, digits and line breaks left out, all else in OTHER; no draws.

Shapes: U teacher ids, B boundaries, K roots of a boundary (padded), V student ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from student_train.cross_tokenizer.vocabulary import Vocabulary

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

_DIGITS = frozenset(b"0123456789")


@dataclass(frozen=True)
class Roots:
    """The root of each teacher id, as a range of the student's ids in `order_V`."""

    order_V: Int64
    """Student ids by the longest root that they begin with, then by bytes: a root's own ids, then those of the roots
    nested in it. Ids without a root come first."""
    root_U: Int64
    """Number of the root, -1 for ids without one."""
    low_R: Int64
    """First id of the root's range, ascending."""
    own_R: Int64
    """One past the last id of which it is the longest root."""
    high_R: Int64
    """One past the last id of its range."""

    @cached_property
    def rank_V(self) -> Int64:
        """The place of each student id in `order_V`."""
        rank = np.empty_like(self.order_V)
        rank[self.order_V] = np.arange(len(rank))
        return rank

    def holds(self, teacher: Int64, student: Int64) -> npt.NDArray[np.bool_]:
        """Say of pairs of ids whether the student's lies in the range of the teacher's root."""
        root, rank = self.root_U[teacher], self.rank_V[student]
        return (root >= 0) & (self.low_R[root] <= rank) & (rank < self.high_R[root])


def prefix_roots(strings: list[bytes], student: Vocabulary) -> Roots:
    """Return the roots of the teacher's ids, whose bytes are `strings`."""
    own = set(student.strings)
    # Blanks are split by what follows them: GPT-2's rule leaves a word its last space, and a line its last line feed.
    roots = [raw if raw in own and raw.strip() else None for raw in strings]
    unknown = [u for u, root in enumerate(roots) if root is None and strings[u]]
    whole = []
    for u in unknown:
        try:
            whole.append((u, strings[u].decode() + "x" * (not strings[u].strip())))
        except UnicodeDecodeError:
            roots[u] = strings[u] if strings[u] in own else strings[u][:1]  # a part of a character
    # A dummy space would hide what a text begins with; none comes after a line feed.
    before = "\n" if student.has_dummy else ""
    for (u, _), ids in zip(whole, student.encode([before + text for _, text in whole]), strict=True):
        at = -len(before) - student.has_dummy
        for token in ids:
            at += len(student.strings[token])
            if at > 0:
                roots[u] = strings[u][:at]
                break
    low_R, high_R, root_U = _numbered([student.range_of(root) if root else (0, 0) for root in roots])
    longest = np.full(len(student.strings), -1, dtype=np.int64)
    for root, (low, high) in enumerate(zip(low_R, high_R, strict=True)):
        longest[low:high] = root  # ascending, so inner ranges write over outer ones
    place = np.argsort(longest, kind="stable")
    low = np.searchsorted(longest[place], np.arange(len(low_R)))
    return Roots(
        order_V=student.order[place],
        root_U=root_U,
        low_R=low,
        own_R=np.searchsorted(longest[place], np.arange(len(low_R)), side="right"),
        high_R=low + high_R - low_R,
    )


def exact_roots(strings: list[bytes], student: Vocabulary, roots: Roots, *, all_kinds: bool = False) -> Roots:
    """Return the student's ids of equal bytes, in the order of `roots`, for `matched`.

    None for what the student lacks and, unless `all_kinds`, for blanks, digits and line feeds.
    """
    ranges = []
    for raw in strings:
        excluded = not raw.strip() or b"\n" in raw or bool(_DIGITS.intersection(raw))
        low, high = student.equal_to(raw) if raw and (all_kinds or not excluded) else (0, 0)
        # Ids of equal bytes are neighbours in either order.
        start = int(roots.rank_V[student.order[low]]) if low < high else 0
        ranges.append((start, start + high - low))
    low_R, high_R, root_U = _numbered(ranges)
    return Roots(order_V=roots.order_V, root_U=root_U, low_R=low_R, own_R=high_R, high_R=high_R)


def _numbered(ranges: list[tuple[int, int]]) -> tuple[Int64, Int64, Int64]:
    """Return first and end of the different ranges, outer before inner, and the number of each; -1 for an empty one."""
    known = sorted({(low, high) for low, high in ranges if low < high}, key=lambda found: (found[0], -found[1]))
    number = {found: i for i, found in enumerate(known)}
    low_R, high_R = np.array(known, dtype=np.int64).reshape(-1, 2).T
    return low_R, high_R, np.array([number.get(found, -1) for found in ranges], dtype=np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """Cells of B boundaries and the teacher's mass in each. Columns by `Roots.order_V`: outer ranges before inner."""

    low_BK: Int64
    """First id of a cell's range in `Roots.order_V`, nested ranges included; V for padding."""
    high_BK: Int64
    """One past its last."""
    mass_BK: Float32
    """The teacher's mass in the root's cell."""
    other_B: Float32
    """The teacher's mass in OTHER."""
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
    head_only: bool = False,
) -> Partition:
    """Return the cells of `boundaries` boundaries that have mass.

    `head` and `draws` are (boundary, teacher id, weight) of entries, in any order; `top` is (boundary, teacher id) of
    the likeliest ones; `vocab_size` is the student's. With `head_only` draws make no cells of their own.
    """
    bits = len(roots.low_R).bit_length()
    key, mass = _summed(roots, head, bits)
    in_head = np.ones(len(key), dtype=np.bool_)
    if draws is not None and len(draws[0]):
        drawn, drawn_mass = _summed(roots, draws, bits)
        inner = _innermost(roots, key, drawn, bits)
        held = inner >= 0
        mass = mass + np.bincount(inner[held], weights=drawn_mass[held], minlength=len(key))
        if not head_only:
            free = ~held & (roots.own_R > roots.low_R)[drawn & ((1 << bits) - 1)]
            key, mass = np.concatenate((key, drawn[free])), np.concatenate((mass, drawn_mass[free]))
            order = np.argsort(key, kind="stable")
            in_head = order < len(in_head)
            key, mass = key[order], mass[order]
    cell_at, cell_root = key >> bits, key & ((1 << bits) - 1)
    count = np.bincount(cell_at, minlength=boundaries)
    start = np.cumsum(count) - count
    column = np.arange(len(key)) - start[cell_at]
    low = roots.low_R[cell_root]
    high = np.where(in_head, roots.high_R[cell_root], roots.own_R[cell_root])

    K = max(1, int(count.max(initial=0)))
    low_BK = np.full((boundaries, K), vocab_size, dtype=np.int64)
    high_BK = np.full((boundaries, K), vocab_size, dtype=np.int64)
    mass_BK = np.zeros((boundaries, K), dtype=np.float32)
    low_BK[cell_at, column] = low
    high_BK[cell_at, column] = high
    mass_BK[cell_at, column] = mass
    mass_B = np.bincount(cell_at, weights=mass, minlength=boundaries)
    top_B = np.full(boundaries, -1, dtype=np.int64)
    top_at, top_id = top
    top_root = roots.root_U[top_id]
    rooted = top_root >= 0
    top_at, top_key = top_at[rooted], top_at[rooted] << bits | top_root[rooted]
    found = np.searchsorted(key, top_key)
    top_B[top_at] = column[found]
    return Partition(
        low_BK=low_BK,
        high_BK=high_BK,
        mass_BK=mass_BK,
        other_B=np.maximum(1.0 - mass_B, 0.0).astype(np.float32),
        top_B=top_B,
    )


def _summed(roots: Roots, entries: tuple[Int64, Int64, Float64], bits: int) -> tuple[Int64, Float64]:
    """Return the roots of (boundary, teacher id, weight) as ascending keys boundary << bits | root, and their mass."""
    at, ids, weight = entries
    root = roots.root_U[ids]
    known = root >= 0
    key, place = np.unique(at[known] << bits | root[known], return_inverse=True)
    mass: Float64 = np.bincount(place, weights=weight[known], minlength=len(key))
    return key, mass


def _innermost(roots: Roots, head: Int64, keys: Int64, bits: int) -> Int64:
    """Return for each key the last of the ascending `head` of its boundary whose range holds its root's; -1: none."""
    mask, size = (1 << bits) - 1, len(roots.order_V).bit_length()
    head_high = roots.high_R[head & mask]
    goal = keys >> bits << size | roots.high_R[keys & mask]
    # How far the ranges up to each of the head reach: most draws are in none, and need no search.
    reach = np.maximum.accumulate(head >> bits << size | head_high)
    found = np.searchsorted(head, keys, side="right") - 1
    held = found >= 0
    held[held] = reach[found[held]] >= goal[held]
    found[~held] = -1
    left = np.flatnonzero(held)
    while len(left):  # one step outwards each; ranges begin in order, so the first that reaches far enough holds it
        left = left[head_high[found[left]] < roots.high_R[keys[left] & mask]]
        found[left] -= 1
    return found
