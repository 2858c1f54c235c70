"""Tests of the picture of a cache."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.reports.statistics import measure


@pytest.fixture
def reported(cache_folder: Path) -> shards.Cache:
    """Return a cache with its report, as a dump leaves it."""
    cache = shards.open(cache_folder)
    (cache_folder / "manifest.json").write_bytes(replace(cache.manifest, report=measure(cache)).to_bytes())
    return shards.open(cache_folder)


def checked(cache: shards.Cache) -> dict[str, object]:
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


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_picture_is_drawn_with_and_without_a_check(reported: shards.Cache, tmp_path: Path, ending: str) -> None:
    folder, path = reported.store.base, tmp_path / f"picture.{ending}"
    result = CliRunner().invoke(main, ["inspect", folder, "--picture", str(path)])
    assert result.exit_code == 0, result.output
    small = path.read_bytes()
    (Path(folder) / "check.json").write_text(json.dumps(checked(reported)))
    assert CliRunner().invoke(main, ["inspect", folder, "--picture", str(path)]).exit_code == 0
    assert len(path.read_bytes()) > len(small)
    if ending == "svg":
        text = path.read_text()
        assert "c = 0.05 (this cache)" in text
        assert "Where the bytes go" in text


def test_another_ending_is_refused(reported: shards.Cache, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["inspect", reported.store.base, "--picture", str(tmp_path / "p.txt")])
    assert result.exit_code == 1
    assert "found the ending '.txt', expected .svg or .png" in result.output
    result = CliRunner().invoke(main, ["inspect", reported.store.base, "--row", "0", "--picture", "p.svg"])
    assert result.exit_code == 2
    assert "give one of them" in result.output
