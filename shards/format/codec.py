"""How does a distribution become bytes, and back? Quantisation, packing, exact sums.

Of a position's probabilities, all but the largest are coded; the largest is what remains to one, so the targets
of a position sum to one exactly and the relative error of the difference lands where it is smallest. (Leaving the
*tail* as the difference, as is usual, makes small tails wrong by large factors: docs/decisions/0002.)

Codes are spaced evenly in asin(sqrt(p)), where the KL divergence that a step causes is the same everywhere
(the variance-stabilising transform of a proportion): steps are finest near 0 and, for the tail, near 1.

Shapes: N tokens, R rows, P = N - R positions, E head entries, D draws, Z temperatures.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from shards.errors import CorruptShardError, ShardError
from shards.format.chunk import Chunk, Float32, Int32, Int64, RowInfo
from shards.format.schema import MAX_ENTRIES, UNIT, Layout

Codes = npt.NDArray[np.uint8]
Streams = dict[str, npt.NDArray[np.generic]]
"""The value buffers of a chunk's list columns, by name, each flat over all rows."""


@functools.cache
def tail_table() -> Int32:
    """Return int32 [256], units of 2^-24: the mass of each tail code, round(2^24 sin^2(i pi / 510))."""
    return _table(math.pi / 510)


@functools.cache
def head_table() -> Int32:
    """Return int32 [256], units of 2^-24: the probability of each head code, round(2^24 sin^2(i pi / 1020))."""
    return _table(math.pi / 1020)


def _table(step: float) -> Int32:
    table = np.array([round(UNIT * math.sin(i * step) ** 2) for i in range(256)], dtype=np.int32)
    table.setflags(write=False)
    return table


def tail_code(tail: npt.NDArray[np.float64]) -> Codes:
    """Return the codes of tail masses; mass outside [0, 1] (rounding of a float sum) is brought back to it."""
    codes: Codes = np.rint(np.arcsin(np.sqrt(np.clip(tail, 0, 1))) * (510 / math.pi)).astype(np.uint8)
    return codes


@functools.cache
def expected_draws(threshold: float, tail_floor: float) -> npt.NDArray[np.uint8]:
    """Return uint8 [256]: how many draws a position with this tail code is expected to have, ceil(tail / c)."""
    mass = tail_table().astype(np.float64)
    draws = np.ceil(mass / (threshold * UNIT) - 1e-9)
    draws[mass < tail_floor * UNIT] = 0
    if draws.max() > MAX_ENTRIES:
        raise ShardError(f"threshold: found {threshold}, expected at least {1 / MAX_ENTRIES:.4f}")
    return draws.astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------
# Encoding


def encode(
    layout: Layout,
    *,
    tokens: Int32,
    next_ids: Int32,
    head_count: Int64,
    head_ids: Int32,
    head_probs: Float32,
    draw_count: Int64,
    draw_ids: Int32,
    label_logp: Float32,
    whitespace_logp: Float32,
    entropy: Float32,
    log_z: Float32,
) -> Streams:
    """Encode the positions of some rows as the streams of the schema.

    `tokens` [N]; `next_ids` [P] the realised token of each position; `head_ids` [E], `head_probs` [E] by falling
    probability within a position, `head_count` [P] of them; `draw_ids` [D] ascending within a position,
    `draw_count` [P] of them; `log_z` [P, Z]; the rest [P]. A position with an empty head has all mass in its tail.

    Raises ShardError on what no distribution can be: ids outside the vocabulary, probabilities outside [0, 1] or
    rising, values that are not finite.
    """
    positions = len(next_ids)
    head_starts, draw_starts = _starts(head_count), _starts(draw_count)
    owner = np.repeat(np.arange(positions), head_count)
    _check_input(layout, tokens, head_count, head_ids, head_probs, owner, draw_count, draw_ids, label_logp,
                 whitespace_logp, entropy, log_z)  # fmt: skip

    has_head = head_count > 0
    first = head_starts[:-1][has_head]
    mass = np.bincount(owner, head_probs.astype(np.float64), positions).astype(np.float64)
    # A position with a head keeps something for it, however flat the distribution.
    tails = np.where(has_head, np.minimum(tail_code(1 - mass), 254), 255).astype(np.uint8)
    is_first = np.zeros(len(head_ids), bool)
    is_first[first] = True
    others = ~is_first
    codes = np.rint(
        np.arcsin(np.sqrt(np.minimum(head_probs[others], 0.5).astype(np.float64))) * (1020 / math.pi)
    ).astype(np.uint8)
    codes = _leave_the_first_largest(np.maximum(codes, 1), tails, np.maximum(head_count - 1, 0))

    gaps = np.diff(draw_ids, prepend=np.int32(0))
    begins = draw_starts[:-1][draw_count > 0]
    gaps[begins] = draw_ids[begins]

    outside = ~_realised_in_head(next_ids, head_ids, owner, positions)
    realised = np.rint(-label_logp[outside].astype(np.float64) / layout.realised_step)
    streams: Streams = {
        "tokens": tokens,
        "head_count": head_count.astype(np.uint8),
        "head_ids": head_ids,
        "head_codes": codes,
        "tail_codes": tails,
        "draw_surplus": (draw_count - expected_draws(layout.threshold, layout.tail_floor)[tails]).astype(np.uint8),
        "realised_codes": np.clip(realised, 0, 65535).astype(np.uint16),
        "whitespace_codes": tail_code(np.exp(np.minimum(whitespace_logp.astype(np.float64), 0))),
        "entropy_codes": np.rint(
            255 * np.sqrt(np.clip(entropy.astype(np.float64), 0, layout.entropy_max) / layout.entropy_max)
        ).astype(np.uint8),
    }
    for plane in range(layout.id_bytes):
        streams[f"draw_gaps_{plane}"] = (gaps >> (8 * plane) & 0xFF).astype(np.uint8)
    for z in range(len(layout.temperatures)):
        steps = np.rint(log_z[:, z].astype(np.float64) / layout.log_z_step) + _LOG_Z_ZERO
        streams[f"log_z_codes_{z}"] = np.clip(steps, 0, 65535).astype(np.uint16)
    ids = np.uint16 if layout.id_bytes == 2 else np.uint32
    streams["tokens"], streams["head_ids"] = tokens.astype(ids), head_ids.astype(ids)
    return streams


_LOG_Z_ZERO = 32768
"""log Z_T is negative for T < 1, so its codes count from the middle."""


def _leave_the_first_largest(codes: Codes, tails: Codes, others: Int64) -> Codes:
    """Lower codes where rounding left the largest probability, which is the difference, below the second."""
    starts = _starts(others)
    some = np.flatnonzero(others)
    for _ in range(256):
        probs = head_table()[codes].astype(np.int64)
        total = np.concatenate(([0], np.cumsum(probs)))
        largest = UNIT - tail_table()[tails].astype(np.int64) - (total[starts[1:]] - total[starts[:-1]])
        second = probs[starts[:-1][some]]
        low = some[largest[some] < second]
        if not len(low):
            return codes
        codes = codes.copy()
        for p in low:  # a few positions in a million
            part = slice(starts[p], starts[p + 1])
            codes[part] = np.minimum(codes[part], max(int(codes[starts[p]]) - 1, 1))
    raise ShardError("head_probs: found a head whose mass and tail exceed one, expected at most one")


def _check_input(
    layout: Layout,
    tokens: Int32,
    head_count: Int64,
    head_ids: Int32,
    head_probs: Float32,
    owner: Int64,
    draw_count: Int64,
    draw_ids: Int32,
    label_logp: Float32,
    whitespace_logp: Float32,
    entropy: Float32,
    log_z: Float32,
) -> None:
    for name, ids in (("tokens", tokens), ("head_ids", head_ids), ("draw_ids", draw_ids)):
        if len(ids) and not (ids.min() >= 0 and ids.max() < layout.vocab_size):
            raise ShardError(
                f"{name}: found ids from {ids.min()} to {ids.max()}, expected 0 to {layout.vocab_size - 1}"
            )
    for name, count in (("head_count", head_count), ("draw_count", draw_count)):
        if len(count) and not (count.min() >= 0 and count.max() <= MAX_ENTRIES):
            raise ShardError(f"{name}: found up to {count.max()}, expected 0 to {MAX_ENTRIES}")
    for name, values in (("label_logp", label_logp), ("entropy", entropy), ("log_z", log_z)):
        if not np.isfinite(values).all():
            raise ShardError(
                f"{name}: found values that are not finite, expected finite ones; check the teacher's dtype"
            )
    if np.isnan(whitespace_logp).any():
        raise ShardError("whitespace_logp: found NaN, expected numbers; check the teacher's dtype")
    if not (np.isfinite(head_probs).all() and (head_probs >= 0).all() and (head_probs <= 1.00001).all()):
        raise ShardError("head_probs: found values outside [0, 1], expected probabilities")
    if len(head_probs) > 1 and ((np.diff(head_probs) > 0) & (np.diff(owner) == 0)).any():
        raise ShardError("head_probs: found rising probabilities within a position, expected falling ones")
    if (label_logp > 1e-3).any():
        raise ShardError(f"label_logp: found {label_logp.max()}, expected at most 0")


# ---------------------------------------------------------------------------------------------------------------
# Decoding


def decode(
    layout: Layout,
    streams: Mapping[str, npt.NDArray[np.generic]],
    row_tokens: Int64,
    rows: tuple[RowInfo, ...],
) -> Chunk:
    """Decode the streams of a chunk whose rows have `row_tokens` [R] tokens each.

    Raises CorruptShardError where the streams contradict each other; that cannot happen to bytes whose digest
    was checked unless whoever wrote them was wrong.
    """
    row_starts = _starts(row_tokens)
    tokens = streams["tokens"].astype(np.int32)
    is_position = np.ones(len(tokens), bool)
    is_position[row_starts[:-1]] = False
    next_ids = tokens[is_position]
    positions = len(next_ids)

    tails = streams["tail_codes"].astype(np.uint8, copy=False)
    head_count = streams["head_count"].astype(np.int64)
    expected = expected_draws(layout.threshold, layout.tail_floor)[tails]
    draw_count = (expected + streams["draw_surplus"].astype(np.uint8, copy=False)).astype(np.int64)
    head_starts, draw_starts = _starts(head_count), _starts(draw_count)
    _check_lengths(layout, streams, positions, int(head_starts[-1]), int(draw_starts[-1]), head_count)

    head_ids = streams["head_ids"].astype(np.int32)
    tail = tail_table()[tails]
    probs = _head_probs(streams["head_codes"].astype(np.uint8, copy=False), tail, head_count, head_starts)

    realised = np.empty(positions, np.float32)
    owner = np.repeat(np.arange(positions, dtype=np.int32), head_count)
    hits = np.flatnonzero(head_ids == next_ids[owner])
    inside = np.zeros(positions, bool)
    inside[owner[hits]] = True
    with np.errstate(divide="ignore"):
        realised[owner[hits]] = np.log(probs[hits])
    codes = streams["realised_codes"]
    outside = np.flatnonzero(~inside)
    if len(codes) != len(outside):
        raise CorruptShardError(f"realised_codes: found {len(codes)}, expected {len(outside)}")
    realised[outside] = codes.astype(np.float32) * np.float32(-layout.realised_step)

    with np.errstate(divide="ignore"):
        white = np.log(tail_table().astype(np.float32) / np.float32(UNIT))
    entropy = (np.arange(256, dtype=np.float64) / 255) ** 2 * layout.entropy_max
    log_z = np.empty((positions, len(layout.temperatures)), np.float32)
    for z in range(len(layout.temperatures)):
        log_z[:, z] = (streams[f"log_z_codes_{z}"].astype(np.float32) - _LOG_Z_ZERO) * np.float32(layout.log_z_step)
    return Chunk(
        rows=rows,
        row_starts=row_starts,
        tokens=tokens,
        label_logp=realised,
        head_starts=head_starts,
        head_ids=head_ids,
        head_probs=probs,
        tail_mass=tail.astype(np.float32) * np.float32(1 / UNIT),
        draw_starts=draw_starts,
        draw_ids=_draw_ids(layout, streams, draw_starts),
        log_z=log_z,
        whitespace_logp=white[streams["whitespace_codes"].astype(np.uint8, copy=False)],
        entropy=entropy.astype(np.float32)[streams["entropy_codes"].astype(np.uint8, copy=False)],
    )


def _head_probs(codes: Codes, tail: Int32, head_count: Int64, head_starts: Int64) -> Float32:
    """Return float32 [E]: coded probabilities, and before them, in each position, what remains to one."""
    has_head = head_count > 0
    first = head_starts[:-1][has_head]
    units = np.empty(int(head_starts[-1]), np.int32)
    others = np.ones(len(units), bool)
    others[first] = False
    units[first] = 0
    units[others] = head_table()[codes]
    if len(first):
        # Every position's entries are contiguous and headless positions have none, so reduceat's segments are ours.
        units[first] = UNIT - tail[has_head] - np.add.reduceat(units, first)
        if units[first].min() < 0:
            raise CorruptShardError("head_codes: found a head whose mass and tail exceed one, expected at most one")
    return units.astype(np.float32) * np.float32(1 / UNIT)


def _draw_ids(layout: Layout, streams: Mapping[str, npt.NDArray[np.generic]], draw_starts: Int64) -> Int32:
    """Return int32 [D]: running sums of the gaps, begun afresh at each position."""
    gaps = streams["draw_gaps_0"].astype(np.int32)
    for plane in range(1, layout.id_bytes):
        gaps |= streams[f"draw_gaps_{plane}"].astype(np.int32) << (8 * plane)
    if not len(gaps):
        return gaps
    begins = draw_starts[:-1][np.diff(draw_starts) > 0]
    sums = np.cumsum(gaps, dtype=np.int64)
    base = np.zeros(len(begins), np.int64)
    base[1:] = sums[begins[1:] - 1]
    ids: Int32 = (sums - np.repeat(base, np.diff(np.append(begins, len(gaps))))).astype(np.int32)
    return ids


def _realised_in_head(next_ids: Int32, head_ids: Int32, owner: Int64, positions: int) -> npt.NDArray[np.bool_]:
    inside = np.zeros(positions, bool)
    inside[owner[head_ids == next_ids[owner]]] = True
    return inside


def _check_lengths(
    layout: Layout,
    streams: Mapping[str, npt.NDArray[np.generic]],
    positions: int,
    heads: int,
    draws: int,
    head_count: Int64,
) -> None:
    coded = heads - int(np.count_nonzero(head_count))
    expected = {"head_count": positions, "tail_codes": positions, "draw_surplus": positions, "head_ids": heads,
                "head_codes": coded, "whitespace_codes": positions, "entropy_codes": positions}  # fmt: skip
    expected |= {f"draw_gaps_{plane}": draws for plane in range(layout.id_bytes)}
    expected |= {f"log_z_codes_{z}": positions for z in range(len(layout.temperatures))}
    for name, length in expected.items():
        if len(streams[name]) != length:
            raise CorruptShardError(f"{name}: found {len(streams[name])} values, expected {length}")


def _starts(counts: Int64) -> Int64:
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts
