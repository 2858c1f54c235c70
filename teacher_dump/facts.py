"""What do the finished records look like? Facts for the manifest, from the shards alone.

Taken from what was written, not from what was computed, so they are the same whoever wrote the shards and in how many
runs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np

from shards.chunk import Chunk
from shards.read import Cache


def measure(cache: Cache) -> dict[str, Any]:
    """Return facts about the records, from the finished shards: every chunk is read and its digest checked."""
    positions = text_bytes = 0
    sums: Counter[str] = Counter()
    documents: set[str] = set()
    for chunk in cache:
        positions += len(chunk.tail_mass)
        documents.update(r.document for r in chunk.rows)
        text_bytes += sum(r.byte_end - r.byte_start for r in chunk.rows)
        sums.update(_sums(chunk))
    mean = {name: round(value / positions, 6) for name, value in sums.items()}
    return {
        "documents": len(documents),
        "documents_sha256": hashlib.sha256("".join(sorted(documents)).encode()).hexdigest(),
        "positions": positions,
        "text_bytes": text_bytes,
        **mean,
        "bits_per_byte": round(-sums["realised_logp"] / np.log(2) / max(1, text_bytes), 6),
    }


def _sums(chunk: Chunk) -> dict[str, float]:
    f64 = np.float64
    return {
        "head_entries": float(len(chunk.head_ids)),
        "draws": float(len(chunk.draw_ids)),
        "head_mass": float(1 - chunk.tail_mass.astype(f64).mean()) * len(chunk.tail_mass),
        "without_draws": float((np.diff(chunk.draw_starts) == 0).sum()),
        "entropy": float(chunk.entropy.astype(f64).sum()),
        "realised_logp": float(chunk.realised_logp.astype(f64).sum()),
    }
