"""Tests of the page of one result."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from evalkit.cli import main
from evalkit.reports.score_page import SHOWN_SAMPLES, shown_executions
from evalkit.rerank.base import ProblemResult
from evalkit.samples.base import Execution, Sample
from evalkit.sandbox.verdict import Verdict


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
