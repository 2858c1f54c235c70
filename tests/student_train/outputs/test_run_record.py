"""Tests of what a record states about its held-out figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.student_train.toy import run, toy_config


def test_one_held_out_document_gives_figures_without_intervals_and_no_noise(
    world: Any, at_home: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said = run(toy_config(world, out, max_steps=2, save_every=0, held_out_tokens=1))
    record = json.loads((out / "run.json").read_text())
    assert record["held_out"]["rows"] == 1
    assert record["noise"] is None
    after = record["held_out"]["after"]
    assert [set(figure) for figure in after.values()] == [{"mean"}] * 4
    assert f"-> {after['kl']['mean']:.4f}; " in said[-1]
