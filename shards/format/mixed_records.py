"""Records of a mixture of teachers, from the records that each of them has of one row.

The mixture of weights w_k is m = sum over k of w_k p_k. Each record is an estimate e_k of p_k: exact on its head, equal
weights on its draws, and unbiased over them. So the sum of w_k e_k is an unbiased estimate of m. Its ids that are in
any head become the head; the others are drawn again, at equal steps from one random offset, to weights that are equal,
as the format needs. Systematic drawing has the weights as its expectation, so the result is unbiased.

Shapes: P positions of a row, E entries of all records of a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from shards.format.batch import Row
from shards.format.chunk import Chunk, Float32, Int32, Int64
from shards.format.quantiser import expected_draws, tail_code
from shards.format.schema import Layout

_Float64 = npt.NDArray[np.float64]


class WeightedIds(NamedTuple):
    """Ids with weights, by position, then id; a position has an id once."""

    position: Int64
    ids: Int64
    weight: _Float64

    def at(self, which: npt.NDArray[Any]) -> WeightedIds:
        """Return some of the entries, by mask or by index."""
        return WeightedIds(self.position[which], self.ids[which], self.weight[which])


def mix_rows(rows: Sequence[Chunk], weights: Sequence[float], layout: Layout, *, seed: str) -> Row:
    """Return the records of a mixture for one row.

    Args:
        rows: The row as each teacher recorded it: chunks of one row with the same tokens.
        weights: Weight of each teacher; they sum to one.
        layout: Layout of the result. Parts that it lacks are not mixed; it has no log Z and no relations.
        seed: Seed of the draws.
    """
    first = rows[0]
    num_positions = len(first.tail_mass)
    entries, in_heads = _weighted_entries(rows, weights)
    is_head = in_heads > 0
    head = _largest_first(entries.at(is_head))
    tail = entries.at(~is_head)
    head_probs = head.weight.astype(np.float32)
    head_count = np.bincount(head.position, minlength=num_positions)
    wanted = _num_draws(layout, head.position, head_probs, head_count)
    draw_count, draw_ids = _draw(tail, wanted, _offsets(first, num_positions, seed))
    unknown = np.full(num_positions, np.nan, np.float32)
    has = {part: part not in layout.absent for part in ("realised", "whitespace", "entropy")}
    return Row(
        info=first.rows[0],
        tokens=first.tokens,
        head_count=head_count.astype(np.int64),
        head_ids=head.ids.astype(np.int32),
        head_probs=head_probs,
        draw_count=draw_count,
        draw_ids=draw_ids,
        label_logp=_mixed_log([row.label_logp for row in rows], weights) if has["realised"] else unknown,
        whitespace_logp=_mixed_log([row.whitespace_logp for row in rows], weights) if has["whitespace"] else unknown,
        entropy=entropy_bound(rows, weights) if has["entropy"] else unknown,
        log_z=np.zeros((num_positions, 0), np.float32),
    )


def entropy_bound(rows: Sequence[Chunk], weights: Sequence[float]) -> Float32:
    """Return a lower bound of the entropy of the mixture [P], in nats.

    It is the mean of the teachers' entropies plus the Jensen-Shannon divergence of their distributions over the ids
    that are in all heads and one class for all others. Merging ids into a class never raises that divergence. The
    entropy is above the bound by at most the mass of the class times the entropy of the teachers' shares of it.

    Args:
        rows: The row as each teacher recorded it.
        weights: Weight of each teacher.
    """
    num_positions = len(rows[0].tail_mass)
    keys = [_positions(row.head_starts) << 32 | row.head_ids.astype(np.int64) for row in rows]
    shared = keys[0]
    for other in keys[1:]:
        shared = np.intersect1d(shared, other, assume_unique=True)
    shared = np.sort(shared)
    mean = np.zeros(num_positions)
    mixed, mixed_probs = np.zeros(num_positions), np.zeros(len(shared))
    for row, key, weight in zip(rows, keys, weights, strict=True):
        order = np.argsort(key)
        probs = row.head_probs.astype(np.float64)[order[np.searchsorted(key, shared, sorter=order)]]
        own = _coarse_entropy(shared >> 32, probs, num_positions)
        mean += weight * row.entropy.astype(np.float64)
        mixed -= weight * own
        mixed_probs += weight * probs
    divergence = np.maximum(mixed + _coarse_entropy(shared >> 32, mixed_probs, num_positions), 0.0)
    bound: Float32 = (mean + divergence).astype(np.float32)
    return bound


def _coarse_entropy(position: Int64, probs: _Float64, num_positions: int) -> _Float64:
    """Return the entropy [P] of probabilities by position, and of one class that has the rest of the mass."""
    rest = np.maximum(1.0 - np.bincount(position, probs, num_positions), 0.0)
    entropy: _Float64 = -np.bincount(position, _xlogx(probs), num_positions) - _xlogx(rest)
    return entropy


def _xlogx(x: _Float64) -> _Float64:
    value: _Float64 = x * np.log(np.where(x > 0, x, 1.0))
    return value


def _weighted_entries(rows: Sequence[Chunk], weights: Sequence[float]) -> tuple[WeightedIds, Int64]:
    """Return the sum of the weighted estimates, and for each of its ids the number of heads that it is in."""
    keys, values, in_head = [], [], []
    for row, weight in zip(rows, weights, strict=True):
        draws = np.diff(row.draw_starts)
        each = row.tail_mass.astype(np.float64) / np.maximum(draws, 1)
        for starts, ids in ((row.head_starts, row.head_ids), (row.draw_starts, row.draw_ids)):
            keys.append(_positions(starts) << 32 | ids.astype(np.int64))
        values += [weight * row.head_probs.astype(np.float64), weight * np.repeat(each, draws)]
        in_head += [np.ones(len(row.head_ids)), np.zeros(len(row.draw_ids))]
    unique, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    weight_E = np.bincount(inverse, np.concatenate(values), len(unique)).astype(np.float64)
    heads_E = np.bincount(inverse, np.concatenate(in_head), len(unique)).astype(np.int64)
    return WeightedIds(unique >> 32, unique & 0xFFFFFFFF, weight_E), heads_E


def _positions(starts: Int64) -> Int64:
    """Return the position of each entry of a ragged array."""
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


def _largest_first(entries: WeightedIds) -> WeightedIds:
    order = np.lexsort((entries.ids, -entries.weight.astype(np.float32), entries.position))
    return entries.at(order)


def _num_draws(layout: Layout, position: Int64, head_probs: Float32, head_count: npt.NDArray[np.integer]) -> Int64:
    """Return the expected number of draws [P] for the tails that the codec will write."""
    mass = np.bincount(position, head_probs.astype(np.float64), len(head_count)).astype(np.float64)
    tails = np.where(head_count > 0, np.minimum(tail_code(1 - mass), 254), 255)
    wanted: Int64 = expected_draws(layout.threshold, layout.tail_floor)[tails].astype(np.int64)
    return wanted


def _draw(tail: WeightedIds, wanted: Int64, offset: _Float64) -> tuple[Int64, Int32]:
    """Draw ids at equal steps along the cumulative weights of each position.

    Args:
        tail: The ids to draw from.
        wanted: [P] number of draws.
        offset: [P] random number in [0, 1).

    Returns:
        The number of draws of each position, 0 where there is nothing to draw from, and the ids, rising.
    """
    sizes = np.bincount(tail.position, minlength=len(wanted))
    counts = np.where(sizes > 0, wanted, 0)
    if not counts.any():
        return counts, np.empty(0, np.int32)
    ends = np.cumsum(sizes)
    total = np.concatenate(([0.0], np.cumsum(tail.weight)))
    below = total[ends - sizes]  # cumulative weight before each position
    mass = total[ends] - below
    owner = np.repeat(np.arange(len(wanted)), counts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = below[owner] + mass[owner] * (offset[owner] + number) / counts[owner]
    found = np.searchsorted(total[1:], places, side="right")
    found = np.clip(found, (ends - sizes)[owner], ends[owner] - 1)  # sums are rounded
    return counts, tail.ids[found].astype(np.int32)


def _offsets(row: Chunk, num_positions: int, seed: str) -> _Float64:
    """Return random numbers in [0, 1) for the positions of a row: a function of its text and the seed."""
    info = row.rows[0]
    key = hashlib.shake_256(f"mix/{seed}/{info.document}/{info.window}".encode())
    bits = np.frombuffer(key.digest(8 * num_positions), "<u8")
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed_log(values: Sequence[Float32], weights: Sequence[float]) -> Float32:
    """Return the log of the weighted sum of probabilities, from their logs."""
    logs = [value.astype(np.float64) + np.log(weight) for value, weight in zip(values, weights, strict=True)]
    mixed: Float32 = np.minimum(np.logaddexp.reduce(logs, axis=0), 0.0).astype(np.float32)
    return mixed
