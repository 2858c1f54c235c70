"""A cache with its report, and the result of a check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import shards
from shards.reports.statistics import measure


@pytest.fixture
def reported(cache_folder: Path) -> shards.Cache:
    """Return a cache with its report, as a dump leaves it."""
    cache = shards.open(cache_folder)
    (cache_folder / "manifest.json").write_bytes(replace(cache.manifest, report=measure(cache)).to_bytes())
    return shards.open(cache_folder)


def checked(cache: shards.Cache) -> dict[str, object]:
    """Return the result of a sound check of a cache."""
    tally = {"mean": 1e-6, "max": 1e-3, "max_steps": 0.5, "agree": 1.0}
    names = ("head ids", "draws", "head probabilities", "tail mass", "realised token", "whitespace mass", "entropy",
             "log Z")  # fmt: skip
    return {
        "manifest_sha256": cache.manifest_sha256,
        "rows": 4,
        "of_rows": cache.rows,
        "engine": {"name": "vllm"},
        "reference": {"name": "transformers", "dtype": "float64"},
        "noise": dict.fromkeys(names, tally),
        "stored": dict.fromkeys(names, tally),
        "limits": dict.fromkeys(names, 3.0),
        "fidelity": {"rms": 0.11, "draws_bias": 1e-3, "draws_bias_error": 2e-3, "kl_quantised": 1e-5,
                     "kl_stored": 1.1e-5, "kl_tail_even": 1.2, "kl_tail_even_undrawn": 4e-4},
        "curve": [
            {"threshold": c, "bytes_per_token": b, "captured": m, "rms": e, "entries": 5.0}
            for c, b, m, e in ((0.1, 15.0, 0.7, 0.2), (0.05, 22.0, 0.8, 0.1), (0.025, 31.0, 0.9, 0.07))
        ],
        "problems": [],
        "sound": True,
    }  # fmt: skip
