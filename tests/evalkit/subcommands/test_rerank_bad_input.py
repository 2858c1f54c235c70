"""Samples, tests and evidence with which little can be done: a clear line each, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.rerank import store
from tests.evalkit.commands import call
from tests.evalkit.rerank.sample_runs import write_rows

TESTS = {"HumanEval/53": ["add(2, 3) == 5\nassert add(1, 1) == 2"]}


def rerank(
    folder: Path, bodies: list[str], tests: dict[str, list[str]], *options: object
) -> tuple[dict[str, Any], str]:
    """Rerank samples of `add`; return the result and what was printed."""
    samples = write_rows(folder / "s.jsonl", {"HumanEval/53": [f"    {body}\n" if body else "" for body in bodies]})
    written = write_rows(folder / "t.jsonl", tests)
    done = call("rerank", samples, "--tests", written, "--json", folder / "r.json")
    assert done.exit_code == 0, done.output
    return json.loads((folder / "r.json").read_text()), done.output


def test_equal_samples_are_said_and_all_methods_agree(tmp_path: Path) -> None:
    result, output = rerank(tmp_path, ["return x + y"] * 3, TESTS)
    assert "1 of 1 problems have equal samples only" in output
    assert {score["pass@1"] for score in result["scores"].values()} == {1.0}


def test_where_every_program_crashes_no_method_is_better_than_random(tmp_path: Path) -> None:
    bodies = ["raise ValueError(x)", "return undefined", "return (", "import os; os._exit(0)"]
    result, output = rerank(tmp_path, bodies, TESTS)
    assert "1 of 1 problems have no program that returns a value for an input" in output
    assert {score["pass@1"] for score in result["scores"].values()} == {0.0}


def test_duplicates_count_and_empty_samples_are_said(tmp_path: Path) -> None:
    result, output = rerank(tmp_path, [*["return x + y"] * 3, "", ""], TESTS)
    assert "2 of 5 samples are empty" in output
    assert result["scores"]["random"]["pass@1"] == pytest.approx(0.6)
    assert result["scores"]["codet"]["pass@1"] == 1.0
    assert (result["evidence"]["samples"], result["evidence"]["programs"]) == (5, 2)


@pytest.mark.slow
def test_tests_that_loop_flood_or_import_the_solution_cost_no_other_test_its_result(tmp_path: Path) -> None:
    hostile = [
        "add(2, 3) == 5 and [None for _ in iter(int, 1)]",
        "all(print('x' * 10 ** 7) is None for _ in iter(int, add(1, 2)))",
        "__import__('candidate').add(2, 3) == 5",
        "__import__('solution').add(2, 3) == 5",
        "add(1, 1) == 2\nwhile True: add(1, 1)",
        "add.__globals__.clear() or add(2, 3) == 6",
    ]
    tests = {"HumanEval/53": [*hostile, *TESTS["HumanEval/53"]]}
    result, _ = rerank(tmp_path, ["return x - y", "return x + y"], tests)
    for method in ("codet", "srank", "max-pass", "combined"):
        assert result["tasks"]["HumanEval/53"][method]["right"], method
    assert result["evidence"]["tests"] == 8
    assert result["evidence"]["outputs_failed"] == 0


def test_evidence_of_another_version_is_said_and_executed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = ["return x - y", "return x + y"]
    with monkeypatch.context() as patch:
        patch.setattr(store, "sandbox_version", lambda: "python 2.7.18, sandbox 1, evidence 1")
        first, _ = rerank(tmp_path, bodies, TESTS)
    second, output = rerank(tmp_path, bodies, TESTS)
    assert "6 outputs are of python 2.7.18, sandbox 1, evidence 1, not python 3" in output
    assert "computed again" in output
    assert first["evidence"]["outputs_executed"] == second["evidence"]["outputs_executed"] == 6
    third, _ = rerank(tmp_path, bodies, TESTS)
    assert third["evidence"]["outputs_executed"] == 0
    assert third["scores"] == second["scores"] == first["scores"]
