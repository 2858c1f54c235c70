"""Quantise and pack the records of a chunk, and unpack them.

Of the probabilities of a position, all but the largest are coded. The largest is the remainder, so the targets of a
position sum to exactly 1, and the error of the remainder falls where it is relatively smallest. (If the *tail* is the
remainder, as is usual, small tails are wrong by large factors: docs/decisions/0002.)

Shapes: N tokens, R rows, P positions (`shards.format.chunk`), E head entries, D draws, Z temperatures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.errors import CorruptShardError, ShardError
from shards.format.chunk import Chunk, Float32, Int32, Int64, RowInfo, contexts_of, label_mask
from shards.format.quantiser import Codes, expected_draws, head_table, tail_code, tail_table
from shards.format.relations import encode_relations
from shards.format.schema import HEAD_STEP, LOG_Z_ZERO, MAX_CODE, MAX_ENTRIES, UNIT, Layout

Streams = Mapping[str, npt.NDArray[np.generic]]
"""Values of the list columns of a chunk by name, each flat over all rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlatRecords:
    """Records of all rows of a chunk, not yet encoded."""

    tokens: Int32
    """[N] token ids."""
    next_ids: Int32
    """[P] labels: the token that the text has at each position."""
    head_count: Int64
    """[P] number of head entries; 0 if all mass is in the tail."""
    head_ids: Int32
    """[E] ids, by falling probability within a position."""
    head_probs: Float32
    """[E] their probabilities."""
    draw_count: Int64
    """[P] number of draws."""
    draw_ids: Int32
    """[D] drawn ids, ascending within a position."""
    label_logp: Float32
    """[P] natural log of the label's probability."""
    whitespace_logp: Float32
    """[P] natural log of the mass on whitespace."""
    entropy: Float32
    """[P] entropy in nats."""
    log_z: Float32
    """[P, Z] log Z for each temperature."""
    relations: Float32 | None = None
    """[S, C] vectors of the positions with relations; None if there are none."""


# ---------------------------------------------------------------------------------------------------------------
# Encoding


def encode(layout: Layout, records: FlatRecords) -> dict[str, npt.NDArray[np.generic]]:
    """Encode records as the streams of the schema.

    Raises:
        ShardError: If no distribution has such records: ids outside the vocabulary, probabilities outside [0, 1] or
            rising, values that are not finite.
    """
    positions = len(records.next_ids)
    owner = np.repeat(np.arange(positions), records.head_count)
    _check_records(layout, records, owner)
    tails, head_codes = _encode_heads(records, owner)
    outside = ~_label_in_head(records.next_ids, records.head_ids, owner)
    label_codes = np.rint(-_if_stored(layout, "realised", records.label_logp[outside]) / layout.realised_step)
    entropy = np.clip(_if_stored(layout, "entropy", records.entropy), 0, layout.entropy_max)
    whitespace = np.exp(np.minimum(_if_stored(layout, "whitespace", records.whitespace_logp), 0))
    surplus = records.draw_count - expected_draws(layout.threshold, layout.tail_floor)[tails]
    ids = np.uint16 if layout.id_bytes == 2 else np.uint32
    streams: dict[str, npt.NDArray[np.generic]] = {
        "tokens": records.tokens.astype(ids),
        "head_count": records.head_count.astype(np.uint8),
        "head_ids": records.head_ids.astype(ids),
        "head_codes": head_codes,
        "tail_codes": tails,
        "draw_surplus": surplus.astype(np.uint8),
        "realised_codes": np.clip(label_codes, 0, MAX_CODE).astype(np.uint16),
        "whitespace_codes": tail_code(whitespace),
        "entropy_codes": np.rint(255 * np.sqrt(entropy / layout.entropy_max)).astype(np.uint8),
    }
    gaps = _draw_gaps(records)
    for plane in range(layout.id_bytes):
        streams[f"draw_gaps_{plane}"] = (gaps >> (8 * plane) & 0xFF).astype(np.uint8)
    for name in layout.absent_columns & streams.keys():
        streams[name] = streams[name][:0]
    for z in range(len(layout.temperatures)):
        steps = np.rint(records.log_z[:, z].astype(np.float64) / layout.log_z_step) + LOG_Z_ZERO
        streams[f"log_z_codes_{z}"] = np.clip(steps, 0, MAX_CODE).astype(np.uint16)
    return streams | _relation_streams(layout, records.relations)


def _relation_streams(layout: Layout, vectors: Float32 | None) -> dict[str, npt.NDArray[np.generic]]:
    if layout.relations is None:
        if vectors is not None:
            raise ShardError("relations: found vectors, expected none in a layout without relations")
        return {}
    vectors = np.zeros((0, layout.relations.numbers), np.float32) if vectors is None else vectors
    codes, scales = encode_relations(layout.relations, vectors)
    return {"relation_codes": codes.ravel(), "relation_scales": scales.ravel()}


def _if_stored(layout: Layout, name: str, values: Float32) -> npt.NDArray[np.float64]:
    """Return the values of a part of the records, zeros if the cache lacks it: then no code of them is written."""
    return np.zeros(len(values)) if name in layout.absent else values.astype(np.float64)


def _encode_heads(records: FlatRecords, owner: Int64) -> tuple[Codes, Codes]:
    """Return the tail codes [P], and the head codes of all entries but the first of each position."""
    has_head = records.head_count > 0
    mass = np.bincount(owner, records.head_probs.astype(np.float64), len(has_head)).astype(np.float64)
    # A position with a head keeps some mass for it, however flat the distribution.
    tails = np.where(has_head, np.minimum(tail_code(1 - mass), 254), 255).astype(np.uint8)
    is_coded = np.ones(len(records.head_ids), bool)
    is_coded[_starts(records.head_count)[:-1][has_head]] = False
    coded = np.minimum(records.head_probs[is_coded], 0.5).astype(np.float64)
    codes = np.rint(np.arcsin(np.sqrt(coded)) * (1 / HEAD_STEP)).astype(np.uint8)
    return tails, _keep_first_largest(np.maximum(codes, 1), tails, np.maximum(records.head_count - 1, 0))


def _keep_first_largest(codes: Codes, tails: Codes, num_coded: Int64) -> Codes:
    """Lower codes until the largest probability, which is the remainder, is at least the second.

    Args:
        codes: Head codes of all entries but the first of each position.
        tails: [P] tail codes.
        num_coded: [P] number of `codes` of each position.
    """
    starts = _starts(num_coded)
    some = np.flatnonzero(num_coded)
    for _ in range(256):
        probs = head_table()[codes].astype(np.int64)
        total = np.concatenate(([0], np.cumsum(probs)))
        largest = UNIT - tail_table()[tails].astype(np.int64) - (total[starts[1:]] - total[starts[:-1]])
        second = probs[starts[:-1][some]]
        too_small = some[largest[some] < second]
        if not len(too_small):
            return codes
        codes = codes.copy()
        for p in too_small:  # a few positions in a million
            part = slice(starts[p], starts[p + 1])
            codes[part] = np.minimum(codes[part], max(int(codes[starts[p]]) - 1, 1))
    raise ShardError("head_probs: found a head whose mass and tail exceed one, expected at most one")


def _draw_gaps(records: FlatRecords) -> Int32:
    """Return int32 [D]: the difference of each drawn id and the one before it in its position."""
    gaps = np.diff(records.draw_ids, prepend=np.int32(0))
    first = _starts(records.draw_count)[:-1][records.draw_count > 0]
    gaps[first] = records.draw_ids[first]
    return gaps


def _check_records(layout: Layout, records: FlatRecords, owner: Int64) -> None:
    for name in ("tokens", "head_ids", "draw_ids"):
        ids = getattr(records, name)
        if len(ids) and not (ids.min() >= 0 and ids.max() < layout.vocab_size):
            raise ShardError(
                f"{name}: found ids from {ids.min()} to {ids.max()}, expected 0 to {layout.vocab_size - 1}"
            )
    for name in ("head_count", "draw_count"):
        count = getattr(records, name)
        if len(count) and not (count.min() >= 0 and count.max() <= MAX_ENTRIES):
            raise ShardError(f"{name}: found up to {count.max()}, expected 0 to {MAX_ENTRIES}")
    if "draws" in layout.absent and len(records.draw_ids):
        raise ShardError(f"draw_ids: found {len(records.draw_ids)} draws in a cache without draws, expected none")
    for name, part in (("label_logp", "realised"), ("entropy", "entropy"), ("log_z", "")):
        if part not in layout.absent and not np.isfinite(getattr(records, name)).all():
            raise ShardError(
                f"{name}: found values that are not finite, expected finite ones; check the teacher's dtype"
            )
    if "whitespace" not in layout.absent and np.isnan(records.whitespace_logp).any():
        raise ShardError("whitespace_logp: found NaN, expected numbers; check the teacher's dtype")
    probs = records.head_probs
    if not (np.isfinite(probs).all() and (probs >= 0).all() and (probs <= 1.00001).all()):
        raise ShardError("head_probs: found values outside [0, 1], expected probabilities")
    if len(probs) > 1 and ((np.diff(probs) > 0) & (np.diff(owner) == 0)).any():
        raise ShardError("head_probs: found rising probabilities within a position, expected falling ones")
    if (records.label_logp > 1e-3).any():
        raise ShardError(f"label_logp: found {records.label_logp.max()}, expected at most 0")


# ---------------------------------------------------------------------------------------------------------------
# Decoding


def decode(layout: Layout, streams: Streams, row_tokens: Int64, rows: tuple[RowInfo, ...]) -> Chunk:
    """Decode the streams of a chunk.

    Args:
        layout: Parameters of the codes.
        streams: Values of the list columns.
        row_tokens: [R] number of tokens of each row.
        rows: R descriptions of the rows.

    Raises:
        CorruptShardError: If the streams contradict each other. Bytes with the right digest do so only if they were
            written wrong.
    """
    row_starts = _starts(row_tokens)
    tokens = streams["tokens"].astype(np.int32)
    contexts = contexts_of(rows)
    if ((contexts < 1) | (contexts > row_tokens)).any():
        raise CorruptShardError("context: found a row of fewer tokens than its context, or a context of none")
    next_ids = tokens[label_mask(row_tokens, contexts)]

    tails = _as_uint8(streams["tail_codes"])
    head_count = streams["head_count"].astype(np.int64)
    draw_count = _draw_count(layout, streams["draw_surplus"], tails)
    head_starts, draw_starts = _starts(head_count), _starts(draw_count)
    _check_lengths(layout, streams, len(next_ids), head_count, int(draw_starts[-1]))

    head_ids = streams["head_ids"].astype(np.int32)
    tail = tail_table()[tails]
    probs = _head_probs(_as_uint8(streams["head_codes"]), tail, head_count, head_starts)
    owner = np.repeat(np.arange(len(next_ids), dtype=np.int32), head_count)
    with np.errstate(divide="ignore"):
        whitespace = np.log(tail_table().astype(np.float32) / np.float32(UNIT))
    entropy = ((np.arange(256, dtype=np.float64) / 255) ** 2 * layout.entropy_max).astype(np.float32)
    unknown = np.full(len(next_ids), np.nan, np.float32)
    return Chunk(
        rows=rows,
        row_starts=row_starts,
        tokens=tokens,
        label_logp=_label_logp(layout, streams["realised_codes"], next_ids, head_ids, probs, owner),
        head_starts=head_starts,
        head_ids=head_ids,
        head_probs=probs,
        tail_mass=tail.astype(np.float32) * np.float32(1 / UNIT),
        draw_starts=draw_starts,
        draw_ids=_draw_ids(layout, streams, draw_starts),
        log_z=_log_z(layout, streams, len(next_ids)),
        whitespace_logp=(
            unknown if "whitespace" in layout.absent else whitespace[_as_uint8(streams["whitespace_codes"])]
        ),
        entropy=unknown if "entropy" in layout.absent else entropy[_as_uint8(streams["entropy_codes"])],
    )


def _draw_count(layout: Layout, surplus: npt.NDArray[np.generic], tails: Codes) -> Int64:
    """Return int64 [P]: the number of draws of each position."""
    if "draws" in layout.absent:
        return np.zeros(len(tails), np.int64)
    expected = expected_draws(layout.threshold, layout.tail_floor)[tails]
    return (expected + _as_uint8(surplus)).astype(np.int64)


def _head_probs(codes: Codes, tail: Int32, head_count: Int64, head_starts: Int64) -> Float32:
    """Return float32 [E]: in each position the remainder to 1, then the coded probabilities."""
    has_head = head_count > 0
    first = head_starts[:-1][has_head]
    units = np.empty(int(head_starts[-1]), np.int32)
    is_coded = np.ones(len(units), bool)
    is_coded[first] = False
    units[first] = 0
    units[is_coded] = head_table()[codes]
    if len(first):
        # The entries of a position are contiguous and empty heads have none, so reduceat sums over positions.
        units[first] = UNIT - tail[has_head] - np.add.reduceat(units, first)
        if units[first].min() < 0:
            raise CorruptShardError("head_codes: found a head whose mass and tail exceed one, expected at most one")
    return units.astype(np.float32) * np.float32(1 / UNIT)


def _label_logp(
    layout: Layout,
    codes: npt.NDArray[np.generic],
    next_ids: Int32,
    head_ids: Int32,
    probs: Float32,
    owner: Int32,
) -> Float32:
    """Return float32 [P]: the log of the head probability if the label is in the head, else the coded value or NaN."""
    label_logp = np.empty(len(next_ids), np.float32)
    hits = np.flatnonzero(head_ids == next_ids[owner])
    inside = np.zeros(len(next_ids), bool)
    inside[owner[hits]] = True
    with np.errstate(divide="ignore"):
        label_logp[owner[hits]] = np.log(probs[hits])
    outside = np.flatnonzero(~inside)
    if "realised" in layout.absent:
        label_logp[outside] = np.nan
        outside = outside[:0]
    if len(codes) != len(outside):
        raise CorruptShardError(f"realised_codes: found {len(codes)}, expected {len(outside)}")
    label_logp[outside] = codes.astype(np.float32) * np.float32(-layout.realised_step)
    return label_logp


def _draw_ids(layout: Layout, streams: Streams, draw_starts: Int64) -> Int32:
    """Return int32 [D]: the running sums of the gaps within each position."""
    gaps = streams["draw_gaps_0"].astype(np.int32)
    for plane in range(1, layout.id_bytes):
        gaps |= streams[f"draw_gaps_{plane}"].astype(np.int32) << (8 * plane)
    if not len(gaps):
        return gaps
    first = draw_starts[:-1][np.diff(draw_starts) > 0]
    sums = np.cumsum(gaps, dtype=np.int64)
    base = np.zeros(len(first), np.int64)
    base[1:] = sums[first[1:] - 1]
    ids: Int32 = (sums - np.repeat(base, np.diff(np.append(first, len(gaps))))).astype(np.int32)
    return ids


def _log_z(layout: Layout, streams: Streams, positions: int) -> Float32:
    log_z = np.empty((positions, len(layout.temperatures)), np.float32)
    for z in range(len(layout.temperatures)):
        log_z[:, z] = (streams[f"log_z_codes_{z}"].astype(np.float32) - LOG_Z_ZERO) * np.float32(layout.log_z_step)
    return log_z


def _label_in_head(next_ids: Int32, head_ids: Int32, owner: Int64) -> npt.NDArray[np.bool_]:
    inside = np.zeros(len(next_ids), bool)
    inside[owner[head_ids == next_ids[owner]]] = True
    return inside


def _check_lengths(layout: Layout, streams: Streams, positions: int, head_count: Int64, num_draws: int) -> None:
    heads = int(head_count.sum())
    expected = {
        **dict.fromkeys(("head_count", "tail_codes", "draw_surplus"), positions),
        "head_ids": heads,
        "head_codes": heads - int(np.count_nonzero(head_count)),
        **dict.fromkeys(("whitespace_codes", "entropy_codes"), positions),
        **{f"draw_gaps_{plane}": num_draws for plane in range(layout.id_bytes)},
        **{f"log_z_codes_{z}": positions for z in range(len(layout.temperatures))},
    }
    expected |= dict.fromkeys(layout.absent_columns & streams.keys(), 0)
    for name, length in expected.items():
        if len(streams[name]) != length:
            raise CorruptShardError(f"{name}: found {len(streams[name])} values, expected {length}")


def _as_uint8(codes: npt.NDArray[np.generic]) -> Codes:
    return codes.astype(np.uint8, copy=False)


def _starts(counts: Int64) -> Int64:
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts
