"""How much does a cache hold of what the teacher said? Facts over its positions, measured from its records alone.

What the records alone can tell: captured mass, how much the tail's unread part is worth (the entropy of the whole
distribution is stored, so the entropy inside the tail is known), what the codes' rounding is expected to cost, bytes
by field. What needs the teacher again (the records' true error, the engine's noise) is `teacher-dump --check`.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.format.batch import decode_chunk, read_batch
from shards.format.chunk import Chunk
from shards.format.codec import tail_table
from shards.format.schema import UNIT, Layout
from shards.read import Cache
from shards.write import ZSTD_LEVEL

QUANTILES = (1, 5, 25, 50, 75, 95)
"""Percentages of positions."""
SAMPLED_CHUNKS = 8
"""Chunks, evenly spread, that stand for all where reading or compressing every one would tell no more."""
_HEAD_STEP, _TAIL_STEP = math.pi / 1020, math.pi / 510
"""Steps of the codes of probabilities in asin(sqrt(p)) (docs/format.md)."""
_FIELDS = {
    "tokens": "tokens",
    "head_count": "head ids",
    "head_ids": "head ids",
    "head_codes": "head probabilities",
    "tail_codes": "tail mass",
    "draw_surplus": "draws",
    "realised_codes": "realised token",
    "whitespace_codes": "whitespace mass",
    "entropy_codes": "entropy",
}


def measure(cache: Cache) -> dict[str, Any]:
    """Return facts about the records; every chunk is read and its digest checked.

    Means per position, in nats where they are logs or divergences. A cache without its text has no realised
    log-probs. docs/fidelity.md says what each of them means.
    """
    from shards.format.batch import decode_records  # which writes reports itself

    layout = cache.manifest.layout
    text = layout.tokens == "kept"
    positions = text_bytes = 0
    documents: set[str] = set()
    sums: defaultdict[str, float] = defaultdict(float)
    tails: npt.NDArray[np.int64] = np.zeros(256, np.int64)
    sized = {int(i) for i in np.linspace(0, len(cache) - 1, SAMPLED_CHUNKS)}
    sizes: defaultdict[str, int] = defaultdict(int)
    sized_tokens = 0
    for i in range(len(cache)):
        where, entry, raw = cache.chunk_bytes(i)
        chunk = decode_chunk(layout, raw, where=where, entry=entry) if text else decode_records(layout, raw)
        positions += len(chunk.tail_mass)
        documents.update(r.document for r in chunk.rows)
        text_bytes += sum(r.byte_end - r.byte_start for r in chunk.rows)
        sums["head_entries"] += len(chunk.head_ids)
        sums["draws"] += len(chunk.draw_ids)
        sums["head_mass"] += float((1 - chunk.tail_mass.astype(np.float64)).sum())
        sums["entropy"] += float(chunk.entropy.astype(np.float64).sum())
        if text:
            sums["realised_logp"] += float(chunk.label_logp.astype(np.float64).sum())
        for name, values in losses(chunk, layout.vocab_size).items():
            sums[name] += float(values.sum())
        tails += tail_counts(chunk)
        if i in sized:
            sized_tokens += entry.tokens
            for field, size in field_bytes(layout, raw).items():
                sizes[field] += size
    facts: dict[str, Any] = {
        "documents": len(documents),
        "documents_sha256": hashlib.sha256("".join(sorted(documents)).encode()).hexdigest(),
        "positions": positions,
        "text_bytes": text_bytes,
        "captured_quantiles": captured_quantiles(tails),
        "bytes_by_field": {f: round(n / sized_tokens, 4) for f, n in sorted(sizes.items(), key=lambda x: -x[1])},
    }
    facts |= {name: round(value / positions, 8 if name.startswith("kl_") else 6) for name, value in sums.items()}
    if text:
        facts["bits_per_byte"] = round(-sums["realised_logp"] / math.log(2) / max(1, text_bytes), 6)
    return facts


def losses(chunk: Chunk, vocab_size: int) -> dict[str, npt.NDArray[np.float64]]:
    """Return what a reader of the records misses, float64 [P] each; divergences are from the teacher, in nats.

    without_draws: 1 where the tail is one mass, a bucket; bucket_mass: the mass in it.
    kl_tail_dropped: KL(head renormalised || teacher) = -log(1 - tau); 0 where there is no head.
    kl_tail_even: KL(teacher || head and the tail spread evenly over the other ids) = tau (log(V - k) - H_tail): what
        tau alone leaves unknown. tau H_tail = H - H_head + tau log tau, from the stored entropy, whose rounding
        averages out.
    kl_tail_even_undrawn: the same where there are no draws: what is left with them, since draws are unbiased.
    kl_quantised: expected KL(exact head and tail || stored ones) if rounding errors are spread evenly within a
        step h of asin(sqrt(p)): variance 4 p (1 - p) h^2 / 12 of each coded p, their sum for the largest.
    """
    p = chunk.head_probs.astype(np.float64)
    tau = chunk.tail_mass.astype(np.float64)
    counts = np.diff(chunk.head_starts)
    num = len(tau)
    owner = np.repeat(np.arange(num), counts)
    undrawn = (np.diff(chunk.draw_starts) == 0).astype(np.float64)

    def plogp(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = x * np.log(np.maximum(x, 1e-300))
        return found

    tail_entropy = chunk.entropy.astype(np.float64) + np.bincount(owner, plogp(p), num) + plogp(tau)
    even = tau * np.log(np.maximum(vocab_size - counts, 1)) - tail_entropy

    first = chunk.head_starts[:-1][counts > 0]
    coded = np.ones(len(p))
    coded[first] = 0
    largest = np.ones(num)
    largest[counts > 0] = np.maximum(p[first], 1 / UNIT)
    variance = _TAIL_STEP**2 * tau * (1 - tau) + np.bincount(owner, coded * _HEAD_STEP**2 * p * (1 - p), num)
    direct = _TAIL_STEP**2 * (1 - tau) + np.bincount(owner, coded * _HEAD_STEP**2 * (1 - p), num)
    return {
        "without_draws": undrawn,
        "bucket_mass": undrawn * tau,
        "kl_tail_dropped": np.where(counts > 0, -np.log1p(-np.minimum(tau, 1 - 1 / UNIT)), 0.0),
        "kl_tail_even": even,
        "kl_tail_even_undrawn": undrawn * even,
        "kl_quantised": (direct + variance / largest) / 6 * (counts > 0),
    }


def tail_counts(chunk: Chunk) -> npt.NDArray[np.int64]:
    """Return int64 [256]: at how many positions each tail code stands."""
    units = np.rint(chunk.tail_mass.astype(np.float64) * UNIT).astype(np.int32)
    return np.bincount(np.searchsorted(tail_table(), units), minlength=256)


def captured_quantiles(tails: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return the head mass that at most that percentage of positions stays below, from counts of the tail codes.

    Exact, as numpy's `inverted_cdf`: tail codes take 256 values.
    """
    mass = 1 - tail_table()[::-1].astype(np.float64) / UNIT
    cumulative = np.cumsum(tails[::-1])
    return {
        str(q): round(float(mass[np.searchsorted(cumulative, -(-q * int(cumulative[-1]) // 100))]), 6)
        for q in QUANTILES
    }


def field_bytes(layout: Layout, raw: bytes) -> dict[str, int]:
    """Return the bytes of a chunk's Arrow message by what they hold; they add up to the message."""
    batch = read_batch(layout, raw)
    codec = pa.Codec("zstd", compression_level=ZSTD_LEVEL)
    sizes: defaultdict[str, int] = defaultdict(int)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        field = _FIELDS.get(name) or next((f for start, f in _PREFIXES.items() if name.startswith(start)), _ORIGIN)
        for buffer in column.buffers():
            if buffer is not None and buffer.size:
                # Arrow compresses each buffer by itself, puts its length before it and fills up to 8 bytes.
                sizes[field] += -(-(8 + min(buffer.size, codec.compress(buffer).size)) // 8) * 8
    sizes[_ORIGIN] += len(raw) - sum(sizes.values())
    return dict(sizes)


_ORIGIN = "origin and digests"
_PREFIXES = {"draw_gaps": "draws", "log_z_codes": "log Z"}
