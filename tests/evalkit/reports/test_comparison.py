"""Is a difference called one only when it is, and does the page show every problem?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from evalkit.cli import main
from evalkit.errors import EvalError
from evalkit.reports.comparison import compare
from evalkit.reports.score_page import SHOWN_SAMPLES, shown_executions
from evalkit.rerank.base import ProblemResult
from evalkit.samples.base import Execution, Sample
from evalkit.sandbox.verdict import Verdict


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


def test_a_clear_difference_is_called_one_and_a_small_one_is_not(tmp_path: Path):
    first = result(tmp_path / "a.json", range(60))
    worse = result(tmp_path / "b.json", range(40))
    equal = result(tmp_path / "c.json", range(1, 62))
    one, other = compare([first, worse, equal])
    assert (one.conclusion, one.first_share, one.second_share) == ("the first is better", 0.6, 0.4)
    assert len(one.only_first) == 20
    assert one.only_second == ()
    assert other.conclusion == "no difference shown"
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


def test_a_page_holds_several_runs_side_by_side_safely(tmp_path: Path):
    interval = {"pass@1": {"mean": 0.6, "low": 0.5, "high": 0.7}}
    first = result(
        tmp_path / "a.json", range(60), scores={"humaneval": {"interval": interval, "solved": 60, "problems": 100}}
    )
    worse = result(tmp_path / "b.json", range(40), checkpoint={"source": "<script>x</script>"})
    elsewhere = result(tmp_path / "c.json", range(60), scores={"mbpp": {}})
    half = result(tmp_path / "d.json", range(60), tasks=50)
    page = tmp_path / "page.html"
    done = CliRunner().invoke(main, ["compare", *map(str, (first, worse, elsewhere, half)), "--html", str(page)])
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "<script>x" not in text
    assert "&lt;script&gt;x" in text
    assert "A is better" in text
    assert "60.0%" in text
    assert "only where the results differ (20 of 100)" in text
    assert text.count('<tr class="same">') == 80
    assert text.count('<td class="cell none">') == 100 + 50  # no HumanEval in the third, half of it in the fourth
    assert "http" not in text.replace("http-equiv", "")


def test_the_page_shows_every_problem_its_sample_and_verdict_safely(tmp_path: Path, humaneval):
    samples = tmp_path / "samples.jsonl"
    lines = [
        {"task_id": problem.task_id, "completion": "    return '<script>alert(1)</script>'\n"}
        for problem in humaneval.problems[:4]
    ]
    lines.append({"task_id": "HumanEval/4", "solution": humaneval.problems[4].reference})
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = CliRunner().invoke(main, ["score", "--samples", str(samples), "--json", str(tmp_path / "r.json")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "r.html").read_text()
    for problem in humaneval.problems[:5]:
        assert f"{problem.task_id}</span>" in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "159 problems of the benchmark have no sample" in page
    assert "http" not in page.replace("https://github.com", "")


def test_of_many_samples_both_kinds_are_shown(humaneval):
    executions = tuple(
        Execution(
            sample=Sample(task_id="HumanEval/0", index=index, completion="x"),
            verdict=Verdict(outcome="pass" if index < 9 else "wrong"),
        )
        for index in range(20)
    )
    shown = shown_executions(ProblemResult(problem=humaneval.problems[0], executions=executions))
    assert len(shown) == SHOWN_SAMPLES
    assert {execution.verdict.outcome for execution in shown} == {"pass", "wrong"}
