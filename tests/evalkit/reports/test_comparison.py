"""Tests of the paired comparison of results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from evalkit.cli import main
from evalkit.errors import EvalError
from evalkit.reports.comparison import compare


def result(path: Path, solved: range, *, tasks: int = 100, **changes) -> Path:
    value = {
        "checkpoint": {"source": path.stem},
        "samples": None,
        "protocol": {"humaneval": {"name": "p-v1"}},
        "data": {"humaneval": {"sha256": "a" * 64, "id_prefix": "HumanEval/"}},
        "scores": {"humaneval": {}},
        "tasks": {f"HumanEval/{task}": [{"passed": task in solved}] for task in range(tasks)},
    }
    path.write_text(json.dumps(value | changes))
    return path


def test_a_conclusion_needs_an_interval_without_zero(tmp_path: Path):
    first = result(tmp_path / "a.json", range(60))
    worse = result(tmp_path / "b.json", range(40))
    equal = result(tmp_path / "c.json", range(1, 62))
    large, small = compare([first, worse, equal])
    assert (large.conclusion, large.first_share, large.second_share) == ("the first is better", 0.6, 0.4)
    assert len(large.only_first) == 20
    assert large.only_second == ()
    assert small.conclusion == "no difference shown"
    assert compare([worse, first])[0].conclusion == "the second is better"


def test_other_protocols_data_and_problems_are_remarked(tmp_path: Path):
    first = result(tmp_path / "a.json", range(5))
    second = result(
        tmp_path / "b.json",
        range(5),
        tasks=50,
        protocol={},
        data={"humaneval": {"sha256": "b" * 64, "id_prefix": "HumanEval/"}},
    )
    remarks = " ".join(compare([first, second])[0].remarks)
    assert "their protocols differ: p-v1 and not recorded" in remarks
    assert "their data differ" in remarks
    assert "only 50 problems are in both" in remarks


def of_mbpp(path: Path, problems: dict[str, int], passed: dict[int, bool]) -> Path:
    """Write a result as 0.2.0 did: forms of MBPP whose tasks have one prefix, and the verdict of each task."""
    value = {
        "data": {name: {"sha256": "a" * 64, "id_prefix": "Mbpp/"} for name in problems},
        "scores": {name: {"problems": number} for name, number in problems.items()},
        "tasks": {f"Mbpp/{task}": [{"passed": mark}] for task, mark in passed.items()},
    }
    path.write_text(json.dumps(value))
    return path


def test_parts_of_mbpp_in_one_result_are_not_mixed(tmp_path: Path):
    problems = {"mbpp:train": 20, "mbpp:validation": 20}
    validation = {511 + task: task < 2 for task in range(20)}
    first = of_mbpp(tmp_path / "a.json", problems, {601 + task: task < 15 for task in range(20)} | validation)
    second = of_mbpp(tmp_path / "b.json", problems, {601 + task: task < 5 for task in range(20)} | validation)
    ours, theirs = compare([first, second])
    assert (ours.benchmark, ours.num_problems, ours.first_share, ours.second_share) == ("mbpp:train", 20, 0.75, 0.25)
    assert (theirs.num_problems, theirs.first_share, theirs.second_share) == (20, 0.1, 0.1)
    assert theirs.conclusion == "no difference shown"


@pytest.mark.parametrize(
    "problems",
    [{"mbpp+": 2, "mbpp-sanitized": 2}, {"mbpp:train": 2, "mbpp+": 2}],
    ids=["two editions", "another number of tasks"],
)
def test_tasks_that_cannot_be_told_apart_are_refused(tmp_path: Path, problems: dict[str, int]):
    path = of_mbpp(tmp_path / "a.json", problems, dict.fromkeys((2, 602, 603, 604), True))
    with pytest.raises(EvalError, match=r"have one id_prefix, 'Mbpp/'; expected one for each benchmark; score again"):
        compare([path, path])


@pytest.mark.parametrize(
    ("solved", "conclusion"), [(1, "no difference shown"), (5, "no difference shown"), (6, "the first is better")]
)
def test_a_conclusion_needs_six_problems_that_differ(tmp_path: Path, solved: int, conclusion: str):
    """A bootstrap of equal differences has no width, and an interval without 0 whatever their number."""
    first = result(tmp_path / "a.json", range(solved), tasks=solved)
    none = result(tmp_path / "b.json", range(0), tasks=solved)
    (found,) = compare([first, none])
    assert (found.difference.low, found.difference.high) == (1.0, 1.0)
    assert found.conclusion == conclusion
    says_few = any("fewer than 6 show no difference" in remark for remark in found.remarks)
    assert says_few == (conclusion == "no difference shown")
    (same,) = compare([first, first])
    assert (same.conclusion, same.remarks) == ("no difference shown", ())


def test_results_with_nothing_in_common_are_refused(tmp_path: Path):
    first = result(tmp_path / "a.json", range(5))
    other = result(tmp_path / "b.json", range(5), scores={"mbpp": {}})
    with pytest.raises(EvalError, match="no common benchmark"):
        compare([first, other])
    with pytest.raises(EvalError, match="at least two"):
        compare([first])
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(EvalError, match="holds no scores"):
        compare([first, tmp_path / "x.json"])


def test_the_command_prints_the_conclusion(tmp_path: Path):
    paths = [str(result(tmp_path / name, range(n))) for name, n in (("a.json", 60), ("b.json", 40))]
    done = CliRunner().invoke(main, ["compare", *paths])
    assert done.exit_code == 0
    assert "+20.0" in done.output
