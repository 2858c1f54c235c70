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
