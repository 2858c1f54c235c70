"""Statistics of the records of a cache, computed from the records alone.

They are the captured mass, the weight of the unread part of the tail (the entropy of the whole distribution is
stored, so the entropy inside the tail is known), the expected cost of rounding the codes, and the bytes of each field.
`teacher-dump --check` measures what needs the teacher: the true error of the records, and the noise of the engine.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.format.batch import decode_records, read_batch
from shards.format.chunk import Chunk
from shards.format.quantiser import tail_table
from shards.format.schema import HEAD_STEP, TAIL_STEP, UNIT, Layout
from shards.read import Cache
from shards.write import ZSTD_LEVEL

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

QUANTILES = (1, 5, 25, 50, 75, 95)
"""Percentages of positions."""
SAMPLED_CHUNKS = 8
"""Number of chunks, evenly spaced, that represent a cache where reading or compressing all of them adds little."""
_FIELDS = {
    "messages": "messages",
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
_PREFIXES = {"draw_gaps": "draws", "log_z_codes": "log Z", "relation_": "relations"}
_ORIGIN = "origin and digests"


def measure(cache: Cache) -> dict[str, Any]:
    """Return the statistics of a cache as JSON. Every chunk is read, and its digest is checked.

    Values are means per position; logs and divergences are in nats. docs/fidelity.md explains each of them. A cache
    without its tokens has no log-probabilities of labels, and one that lacks parts of the records no measures of them:
    `realised_in_head` is there instead, the share of positions whose label is in the head. `context_tokens` is there
    for responses only: the number of tokens without a position. `relation_rows` and `relation_positions` are there for
    caches with relations only.
    """
    totals = _Totals(cache.manifest.layout)
    sampled = sampled_chunks(cache)
    for i in range(len(cache)):
        where, entry, raw = cache.chunk_bytes(i)
        totals.add(decode_records(cache.manifest.layout, raw, where=where, entry=entry))
        if i in sampled:
            totals.add_bytes(raw, entry.tokens)
    return totals.facts()


def sampled_chunks(cache: Cache) -> set[int]:
    """Return the indices of at most `SAMPLED_CHUNKS` chunks, evenly spaced."""
    return {int(i) for i in np.linspace(0, len(cache) - 1, SAMPLED_CHUNKS)}


@dataclass(slots=True)
class _Totals:
    """Sums over the positions of a cache."""

    layout: Layout
    positions: int = 0
    context_tokens: int = 0
    text_bytes: int = 0
    documents: set[str] = field(default_factory=set)
    sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    relation_rows: int = 0
    relation_positions: int = 0
    tails: Int64 = field(default_factory=lambda: np.zeros(256, np.int64))
    sizes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    sized_tokens: int = 0

    def add(self, chunk: Chunk) -> None:
        """Add the positions of a chunk."""
        self.positions += len(chunk.tail_mass)
        self.context_tokens += int(chunk.contexts.sum())
        self.documents.update(r.document for r in chunk.rows)
        self.text_bytes += sum(r.byte_end - r.byte_start for r in chunk.rows)
        if chunk.relations is not None:
            self.relation_rows += int(np.count_nonzero(chunk.relations.row_positions))
            self.relation_positions += len(chunk.relations.codes)
        self.sums["head_entries"] += len(chunk.head_ids)
        self.sums["draws"] += len(chunk.draw_ids)
        self.sums["head_mass"] += float((1 - chunk.tail_mass.astype(np.float64)).sum())
        if "entropy" not in self.layout.absent:
            self.sums["entropy"] += float(chunk.entropy.astype(np.float64).sum())
        if self.layout.has_tokens and "realised" not in self.layout.absent:
            self.sums["realised_logp"] += float(chunk.label_logp.astype(np.float64).sum())
        elif self.layout.has_tokens:
            self.sums["realised_in_head"] += int(np.isfinite(chunk.label_logp).sum())
        if not self.layout.absent:
            for name, values in reader_losses(chunk, self.layout.vocab_size).items():
                self.sums[name] += float(values.sum())
        self.tails += tail_counts(chunk)

    def add_bytes(self, raw: bytes, num_tokens: int) -> None:
        """Add the bytes of a chunk by field."""
        self.sized_tokens += num_tokens
        for name, size in field_bytes(self.layout, raw).items():
            self.sizes[name] += size

    def facts(self) -> dict[str, Any]:
        """Return the statistics as JSON."""
        by_size = sorted(self.sizes.items(), key=lambda item: -item[1])
        facts: dict[str, Any] = {
            "documents": len(self.documents),
            "documents_sha256": hashlib.sha256("".join(sorted(self.documents)).encode()).hexdigest(),
            "positions": self.positions,
            "text_bytes": self.text_bytes,
            "captured_quantiles": captured_quantiles(self.tails),
            "bytes_by_field": {name: round(size / self.sized_tokens, 4) for name, size in by_size},
        }
        if self.layout.has_responses:
            facts["context_tokens"] = self.context_tokens
        if self.layout.relations is not None:
            facts["relation_rows"], facts["relation_positions"] = self.relation_rows, self.relation_positions
        for name, value in self.sums.items():
            facts[name] = round(value / max(1, self.positions), 8 if name.startswith("kl_") else 6)
        if "realised_logp" in self.sums:
            bits = -self.sums["realised_logp"] / math.log(2)
            facts["bits_per_byte"] = round(bits / max(1, self.text_bytes), 6)
        return facts


def reader_losses(chunk: Chunk, vocab_size: int) -> dict[str, Float64]:
    """Return what a reader of the records cannot know of each position.

    Divergences are in nats. V is the vocabulary size, k the number of head entries, tau the tail mass, H the stored
    entropy.

    Args:
        chunk: The decoded records.
        vocab_size: V.

    Returns:
        Float64 [P] by name:

        - `without_draws`: 1 if the tail is one mass without draws, else 0. `bucket_mass`: the mass of such a tail.
        - `kl_tail_dropped`: KL(renormalised head || teacher) = -log(1 - tau); 0 if there is no head.
        - `kl_tail_even`: KL(teacher || head, and the tail spread evenly over the other ids)
          = tau (log(V - k) - H_tail), which is unknown from tau alone. tau H_tail = H - H_head + tau log tau; the
          rounding of the stored entropy averages out.
        - `kl_tail_even_undrawn`: the same for positions without draws. With draws nothing is lost in expectation,
          because draws are unbiased.
        - `kl_quantised`: expected KL(exact head and tail || stored ones) if rounding errors are uniform within a step
          h of asin(sqrt(p)): variance 4 p (1 - p) h^2 / 12 of each coded p, and their sum for the largest.
    """
    p = chunk.head_probs.astype(np.float64)
    tau = chunk.tail_mass.astype(np.float64)
    counts = np.diff(chunk.head_starts)
    num = len(tau)
    owner = np.repeat(np.arange(num), counts)
    undrawn = (np.diff(chunk.draw_starts) == 0).astype(np.float64)

    tail_entropy = chunk.entropy.astype(np.float64) + np.bincount(owner, _p_log_p(p), num) + _p_log_p(tau)
    even = tau * np.log(np.maximum(vocab_size - counts, 1)) - tail_entropy

    first = chunk.head_starts[:-1][counts > 0]
    coded = np.ones(len(p))
    coded[first] = 0
    largest = np.ones(num)
    largest[counts > 0] = np.maximum(p[first], 1 / UNIT)
    variance = TAIL_STEP**2 * tau * (1 - tau) + np.bincount(owner, coded * HEAD_STEP**2 * p * (1 - p), num)
    direct = TAIL_STEP**2 * (1 - tau) + np.bincount(owner, coded * HEAD_STEP**2 * (1 - p), num)
    return {
        "without_draws": undrawn,
        "bucket_mass": undrawn * tau,
        "kl_tail_dropped": np.where(counts > 0, -np.log1p(-np.minimum(tau, 1 - 1 / UNIT)), 0.0),
        "kl_tail_even": even,
        "kl_tail_even_undrawn": undrawn * even,
        "kl_quantised": (direct + variance / largest) / 6 * (counts > 0),
    }


def _p_log_p(p: Float64) -> Float64:
    product: Float64 = p * np.log(np.maximum(p, 1e-300))
    return product


def tail_counts(chunk: Chunk) -> Int64:
    """Return int64 [256]: the number of positions with each tail code."""
    units = np.rint(chunk.tail_mass.astype(np.float64) * UNIT).astype(np.int32)
    return np.bincount(np.searchsorted(tail_table(), units), minlength=256)


def captured_quantiles(tails: Int64) -> dict[str, float]:
    """Return quantiles of the head mass over positions.

    They are exact, as numpy's `inverted_cdf`, because tail codes have only 256 values.

    Args:
        tails: [256] number of positions with each tail code.

    Returns:
        The head mass by the percentage of positions that have at most that mass.
    """
    mass = 1 - tail_table()[::-1].astype(np.float64) / UNIT
    cumulative = np.cumsum(tails[::-1])
    return {
        str(q): round(float(mass[np.searchsorted(cumulative, -(-q * int(cumulative[-1]) // 100))]), 6)
        for q in QUANTILES
    }


def field_bytes(layout: Layout, raw: bytes) -> dict[str, int]:
    """Return the bytes of a chunk by field. They add up to the size of its Arrow message."""
    batch = read_batch(layout, raw)
    codec = pa.Codec("zstd", compression_level=ZSTD_LEVEL)
    sizes: defaultdict[str, int] = defaultdict(int)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        label = _FIELDS.get(name) or next((f for start, f in _PREFIXES.items() if name.startswith(start)), _ORIGIN)
        for buffer in column.buffers():
            if buffer is not None and buffer.size:
                # Arrow compresses each buffer by itself, writes its length before it and pads to 8 bytes.
                sizes[label] += -(-(8 + min(buffer.size, codec.compress(buffer).size)) // 8) * 8
    sizes[_ORIGIN] += len(raw) - sum(sizes.values())
    return dict(sizes)
