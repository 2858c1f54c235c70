"""The JSON result tells the tasks of its benchmarks apart."""

from __future__ import annotations

import json
from pathlib import Path

from evalkit.outputs.result import BenchmarkResult, Evaluation
from evalkit.reports.score_file import read_score
from evalkit.rerank.base import ProblemResult
from evalkit.samples.base import Execution, GeneratedSamples, Sample, SamplePlan
from evalkit.sandbox.verdict import Verdict
from evalkit.scoring.metrics import summarise
from evalkit.scoring.time_limits import TimeLimits
from evalkit.tasks.base import Benchmark, Problem


def scored(name: str, task_id: str, *, passed: bool) -> BenchmarkResult:
    """Return the result of a benchmark with one problem."""
    problem = Problem(task_id=task_id, prompt="", entry_points=("f",), prelude="", test="", reference="")
    verdict = Verdict(outcome="pass" if passed else "wrong")
    execution = Execution(sample=Sample(task_id=task_id), verdict=verdict)
    return BenchmarkResult(
        plan=SamplePlan(
            benchmark=Benchmark(name=name, problems=(problem,), source="", sha256="a" * 64), problems=(problem,)
        ),
        limits=TimeLimits(cpu_s={}, failed={}),
        generated=GeneratedSamples(samples=()),
        problems=(ProblemResult(problem=problem, executions=(execution,)),),
        score=summarise({task_id: [verdict]}),
    )


def test_benchmarks_whose_ids_look_alike_have_prefixes_of_their_own(tmp_path: Path) -> None:
    results = (
        scored("humaneval", "HumanEval/0", passed=True),
        scored("mbpp:train", "Mbpp/601", passed=True),
        scored("mbpp:validation", "Mbpp/511", passed=False),
        scored("mbpp+", "Mbpp/511", passed=True),
    )
    evaluation = Evaluation(source={"checkpoint": None, "samples": None}, limit=None, layers=(), benchmarks=results)
    content = evaluation.to_dict()
    assert list(content["tasks"]) == ["HumanEval/0", "Mbpp/601", "mbpp:validation:Mbpp/511", "mbpp+:Mbpp/511"]
    path = tmp_path / "score.json"
    path.write_text(json.dumps(content))
    score = read_score(path)
    passed = {
        result.name: {task: [verdict["passed"] for verdict in items] for task, items in tasks.items()}
        for result in results
        if (tasks := score.tasks_of(result.name))
    }
    assert passed == {
        "humaneval": {"HumanEval/0": [True]},
        "mbpp:train": {"Mbpp/601": [True]},
        "mbpp:validation": {"Mbpp/511": [False]},
        "mbpp+": {"Mbpp/511": [True]},
    }
