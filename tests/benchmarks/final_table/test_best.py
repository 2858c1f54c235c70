"""Tests of the choice of the best arm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import _common
from benchmarks.final_table import best
from benchmarks.final_table.tables import read


def write(scratch: Path, name: str, rate: float, bits: float) -> None:
    scores = {"mbpp:validation": {"pass@1": rate}}
    _common.write_json(scratch / "scores" / f"{name}-validation.json", {"scores": scores})
    measures = {"bits_per_byte": {"mean": bits}}
    _common.write_json(scratch / "held_out" / f"{name}-responses.json", {"models": [{"measures": measures}]})


def test_the_mean_over_seeds_decides_then_bits_per_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, rate in ((0, 0.3), (1, 0.0)):
        write(tmp_path, f"sft-{seed}", rate, 0.9)
        write(tmp_path, f"kd-{seed}", 0.15, 0.8)
    arguments = ["--arms", "sft,kd", "--seeds", "0,1", "--tasks", "mbpp", "--cache", "responses"]
    monkeypatch.setattr(sys, "argv", ["best", "--scratch", str(tmp_path), *arguments])
    best.main()
    assert read(tmp_path / "best.json")["arm"] == "kd"
    assert (tmp_path / "runs" / "best-1").readlink() == Path("kd-1")
    name = "mbpp-samples.samples.jsonl"
    assert (tmp_path / "scores" / f"best-0-{name}").readlink() == Path(f"kd-0-{name}")
    write(tmp_path, "sft-1", 0.1, 0.9)
    best.main()
    assert (tmp_path / "runs" / "best-1").readlink() == Path("sft-1")


def test_of_equal_arms_the_first_is_chosen() -> None:
    equal = {"pass@1": 0.0, "bits per byte": 1.0}
    assert best.choose({"sft": equal, "kd": equal}) == "sft"
