"""Tests of `student-train --evaluate` as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from student_train.cli import main
from student_train.evaluation.comparison import NUM_FURTHEST


def invoke(world: Any, *arguments: object) -> Result:
    fixed = ("--shards", world.shards, "--held-out", "0.3", "--dtype", "float32", "--no-progress")
    return CliRunner().invoke(main, [str(argument) for argument in (*fixed, *arguments)])


def evaluate(world: Any, out: Path, *arguments: object) -> dict[str, Any]:
    result = invoke(world, *arguments, "--json", out)
    assert result.exit_code == 0, result.output
    record: dict[str, Any] = json.loads(out.read_text())
    return record


@pytest.fixture(scope="module")
def student(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of two layers, trained for three steps."""
    out = tmp_path_factory.mktemp("evaluate") / "student"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEACHERLESS_CACHE", str(world.cache_dir))
        result = invoke(world, "--out", out, "--max-steps", 3, "--batch-tokens", 200, "--no-tensorboard")
    assert result.exit_code == 0, result.output
    return out


def test_a_student_has_the_figures_of_its_own_run(at_home: Any, student: Path, tmp_path: Path) -> None:
    record = evaluate(at_home, tmp_path / "e.json", "--evaluate", student)
    run = json.loads((student / "run.json").read_text())
    (model,) = record["models"]
    assert model["measures"] == run["held_out"]["after"]
    rows = [json.loads(line) for line in (student / "held_out.jsonl").read_text().splitlines()]
    assert [row["kl_sum"] for row in record["rows"]] == [[row["kl_sum"]] for row in rows]
    assert record["on"]["tokens"] == sum(row["tokens"] for row in rows)


def test_the_teacher_is_closest_to_itself(at_home: Any, student: Path, tmp_path: Path) -> None:
    record = evaluate(at_home, tmp_path / "e.json", "--evaluate", student, "--vs", "teacher", "--evaluate-on", "all")
    ours, theirs = record["models"]
    assert record["on"]["rows"] == len(at_home.rows)
    assert abs(theirs["measures"]["kl"]["mean"]) < 0.01 < ours["measures"]["kl"]["low"]
    difference = record["differences"]["kl"]
    assert difference["mean"] == pytest.approx(ours["measures"]["kl"]["mean"] - theirs["measures"]["kl"]["mean"])
    assert 0 < difference["low"] < difference["mean"] < difference["high"]


def test_a_model_does_not_differ_from_itself(at_home: Any, student: Path, tmp_path: Path) -> None:
    record = evaluate(at_home, tmp_path / "e.json", "--evaluate", student, "--vs", student)
    for interval in (*record["differences"].values(), *record["kinds_differences"].values()):
        assert (interval["mean"], interval["low"], interval["high"]) == (0.0, 0.0, 0.0)


def test_kinds_and_rows_add_up_to_the_whole(at_home: Any, student: Path, tmp_path: Path) -> None:
    record = evaluate(at_home, tmp_path / "e.json", "--evaluate", student, "--evaluate-on", "all")
    (model,) = record["models"]
    kinds = model["kinds"].values()
    assert sum(kind["tokens"] for kind in kinds) == record["on"]["tokens"]
    total = sum(kind["tokens"] * kind["mean"] for kind in kinds)
    assert total == pytest.approx(record["on"]["tokens"] * model["measures"]["kl"]["mean"], rel=1e-5)
    assert sum(row["kl_sum"][0] for row in record["rows"]) == pytest.approx(total, rel=1e-5)
    furthest = record["furthest"]
    assert len(furthest) == NUM_FURTHEST
    values = [row["values"][0] for row in furthest]
    assert {row["unit"] for row in furthest} == {"nats per token"}
    assert values == sorted(values, reverse=True)
    assert values[0] == max(row["kl_sum"][0] / row["tokens"][0] for row in record["rows"])
    for row in furthest:
        assert np.mean(row["piece_kl"][0]) == pytest.approx(row["values"][0], abs=1e-3)
        assert len(row["pieces"]) == len(row["piece_kl"][0])


def test_the_table_has_a_line_for_each_measure(at_home: Any, student: Path) -> None:
    result = invoke(at_home, "--evaluate", student, "--vs", "teacher")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert any(line.startswith("  KL to the teacher ") for line in lines)
    assert any(line.startswith("  bits per byte ") for line in lines)


def test_what_cannot_be_evaluated_is_one_line(at_home: Any, student: Path, tools: Any, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    tools.llama(vocab=at_home.vocab).config.save_pretrained(fresh)
    config = json.loads((student / "config.json").read_text())
    for method in ("gptq", "awq", "bitsandbytes"):
        shutil.copytree(student, tmp_path / method, ignore=shutil.ignore_patterns("checkpoints"))
        settings = {"quant_method": method, "bits": 4, "load_in_4bit": True}
        (tmp_path / method / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    (tmp_path / "no.gguf").write_bytes(b"GGUF" + os.urandom(64))
    for model, message in (
        (fresh, "found no weights"),
        (tmp_path / "nowhere", "found no such folder"),
        (tmp_path / "nowhere.gguf", "found no such file"),
        (tmp_path / "no.gguf", "does not load"),
        *(
            (tmp_path / method, f"expected weights quantised by {method} that this machine can run")
            for method in ("gptq", "awq", "bitsandbytes")
        ),
    ):
        result = invoke(at_home, "--evaluate", model)
        assert result.exit_code == 1, result.output
        (line,) = result.stderr.splitlines()[-1:]
        assert line.startswith("student-train: ")
        assert message in line


def test_no_row_to_evaluate_on_is_one_line(at_home: Any, student: Path) -> None:
    result = invoke(at_home, "--evaluate", student, "--held-out", "0")
    assert result.exit_code == 1
    assert "found no held-out document" in result.stderr
