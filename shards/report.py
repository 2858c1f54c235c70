"""How much does a cache hold of what the teacher said? Means over its positions, measured from its records."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from typing import Any

import numpy as np

from shards.read import Cache


def measure(cache: Cache) -> dict[str, Any]:
    """Return facts about the records; every chunk is read and its digest checked.

    Means per position, in nats where they are logs. A cache without its text has no realised log-probs.
    """
    from shards.hydrate import decode_records  # which writes reports itself

    text = cache.manifest.layout.tokens == "kept"
    positions = text_bytes = 0
    documents: set[str] = set()
    sums: defaultdict[str, float] = defaultdict(float)
    for i in range(len(cache)):
        chunk = cache[i] if text else decode_records(cache.manifest.layout, cache.chunk_bytes(i)[2])
        positions += len(chunk.tail_mass)
        documents.update(r.document for r in chunk.rows)
        text_bytes += sum(r.byte_end - r.byte_start for r in chunk.rows)
        sums["head_entries"] += len(chunk.head_ids)
        sums["draws"] += len(chunk.draw_ids)
        sums["head_mass"] += float((1 - chunk.tail_mass.astype(np.float64)).sum())
        sums["without_draws"] += int((np.diff(chunk.draw_starts) == 0).sum())
        sums["entropy"] += float(chunk.entropy.astype(np.float64).sum())
        if text:
            sums["realised_logp"] += float(chunk.realised_logp.astype(np.float64).sum())
    facts: dict[str, Any] = {
        "documents": len(documents),
        "documents_sha256": hashlib.sha256("".join(sorted(documents)).encode()).hexdigest(),
        "positions": positions,
        "text_bytes": text_bytes,
    }
    facts |= {name: round(value / positions, 6) for name, value in sums.items()}
    if text:
        facts["bits_per_byte"] = round(-sums["realised_logp"] / math.log(2) / max(1, text_bytes), 6)
    return facts
