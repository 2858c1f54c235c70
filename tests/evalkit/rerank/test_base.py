"""Tests of the select stage: what a selector sees, and what its choice changes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from evalkit.evaluate import evaluate
from evalkit.request import Request
from evalkit.rerank.base import AllSamples, Candidates, select
from evalkit.samples.base import Execution, Sample
from evalkit.sandbox.verdict import Verdict
from evalkit.tasks.base import Benchmark
from tests.evalkit.commands import RIGHT, WRONG, write_lines


class LongestFirst:
    """Keeps one sample of each problem: the one with the longest completion."""

    def __init__(self) -> None:
        self.seen: list[Candidates] = []

    def select(self, candidates: Candidates) -> Sequence[int]:
        """Return the position of the longest completion."""
        self.seen.append(candidates)
        lengths = [len(sample.completion or "") for sample in candidates.samples]
        return [lengths.index(max(lengths))]


class SilentCallbacks:
    """Callbacks that print nothing."""

    def note(self, text: str) -> None:
        """Ignore a line."""

    def start(self, what: str, total: int) -> None:
        """Ignore the begin of a phase."""

    def step(self, steps: int = 1, tokens: int = 0) -> None:
        """Ignore progress."""

    def stop(self) -> None:
        """Ignore the end of a phase."""


def execution(task_id: str, index: int, outcome: str = "pass") -> Execution:
    return Execution(sample=Sample(task_id=task_id, index=index), verdict=Verdict(outcome=outcome))


def test_all_samples_are_kept_in_the_order_of_problems_and_indices(humaneval: Benchmark):
    executions = [execution("HumanEval/1", 1), execution("HumanEval/1", 0), execution("HumanEval/0", 0)]
    results = select(AllSamples(), humaneval.problems[:3], executions)
    assert [(result.problem.task_id, [e.sample.index for e in result.executions]) for result in results] == [
        ("HumanEval/0", [0]),
        ("HumanEval/1", [0, 1]),
    ]


def test_a_selector_sees_no_verdict_and_no_test(humaneval: Benchmark):
    assert {field.name for field in dataclasses.fields(Candidates)} == {"task_id", "prompt", "samples"}
    assert not {"verdict", "outcome", "passed"} & {field.name for field in dataclasses.fields(Sample)}


def test_only_selected_samples_are_scored(tmp_path: Path):
    longer = WRONG | {"completion": f"{WRONG['completion']}# the longest\n"}
    samples = write_lines(tmp_path / "s.jsonl", RIGHT, longer, WRONG)
    selector = LongestFirst()
    request = Request(samples=samples, result=tmp_path / "r.json")
    evaluation = evaluate(request, SilentCallbacks(), selector=selector)
    (candidates,) = selector.seen
    assert len(candidates.samples) == 3
    result = json.loads((tmp_path / "r.json").read_text())
    assert result == json.loads(json.dumps(evaluation.to_dict()))
    assert (result["scores"]["humaneval"]["pass@1"], result["scores"]["humaneval"]["samples"]) == (0.0, 1)
    assert [verdict["outcome"] for verdict in result["tasks"]["HumanEval/53"]] == ["wrong"]
