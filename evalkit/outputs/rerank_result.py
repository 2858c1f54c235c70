"""The JSON result of choosing among samples.

It holds `scores` (method -> pass@k with intervals), `differences` (method -> paired difference to `random`), `tasks`
(task id -> method -> what it put first, and whether that is right), `evidence` (counts), and what is needed to
reproduce them: files, methods, sources of inputs, data, sandbox, versions.
"""

from __future__ import annotations

import sys
from typing import Any

from evalkit.outputs.result import versions
from evalkit.rerank.registry import WITHOUT_OUTPUTS
from evalkit.rerank.run import RerankOutcome
from evalkit.scoring.ranked_problems import RankedProblem

FORMAT = 1
"""Version of the result's format."""


def to_dict(outcome: RerankOutcome) -> dict[str, Any]:
    """Return the JSON result."""
    request = outcome.request
    return {
        "format": FORMAT,
        "kind": "rerank",
        "samples": {
            "files": [file.to_dict() for file in outcome.samples.files],
            "sanitized": request.sanitize,
            "samples": len(outcome.samples.samples),
            "missing": outcome.samples.num_missing,
            "left_out": outcome.samples.num_excluded,
        },
        "task": request.task,
        "limit": request.limit,
        "data": {request.task: outcome.benchmark.to_dict()},
        **choices_dict(outcome),
        "versions": versions(),
        "command": sys.argv,
        "sandbox": {"layers": {layer.name: layer.to_dict() for layer in outcome.layers}},
    }


def choices_dict(outcome: RerankOutcome) -> dict[str, Any]:
    """Return the part of the result that says what the methods chose, by what, and how right they were."""
    request, tests = outcome.request, outcome.tests
    return {
        "tests": None
        if tests is None
        else {
            "path": str(request.tests),
            "texts": tests.num_texts,
            "tests": tests.num_tests,
            "problems_without": len(tests.without_tests),
        },
        "verifier": None if outcome.verifier is None else outcome.verifier.to_dict() | {"path": str(request.verifier)},
        "inputs": list(outcome.settings.inputs),
        "generators": str(request.generators) if request.generators is not None else None,
        "visible_tests": {
            "docstring_examples": outcome.settings.docstring_examples,
            "shown_tests": outcome.settings.shown_tests,
            "methods": list(methods_with_visible_tests(outcome)),
        },
        "scores": {method: score.to_dict() for method, score in outcome.scores.items()},
        "differences": {method: score.differences_dict() for method, score in outcome.scores.items()},
        "tasks": {problem.problem.task_id: _choices(problem, outcome.methods) for problem in outcome.problems},
        "evidence": evidence_dict(outcome),
        "infra_errors": outcome.num_failed,
    }


def methods_with_visible_tests(outcome: RerankOutcome) -> tuple[str, ...]:
    """Return the methods that used tests which the prompt shows: as a filter, or as inputs."""
    if not outcome.counts.examples:
        return ()
    as_inputs = any(outcome.counts.inputs_by_source.get(name) for name in ("examples", "mutation"))
    return tuple(
        method for method in outcome.methods if method == "alphacode" or (as_inputs and method not in WITHOUT_OUTPUTS)
    )


def evidence_dict(outcome: RerankOutcome) -> dict[str, Any]:
    """Return the counts of the evidence; `calls` are the distinct inputs, `time` is in seconds."""
    counts = outcome.counts.to_dict()
    calls, seconds = counts.pop("inputs"), counts.pop("seconds")
    return {"path": str(outcome.request.evidence), "calls": calls, "time": seconds, **counts}


def _choices(problem: RankedProblem, methods: tuple[str, ...]) -> dict[str, Any]:
    """Return what each method put first, whether it is right, and the expected pass@1 of its first group."""
    choices = {}
    for method in methods:
        sample = problem.first(method)
        ranking = problem.rankings[method]
        choices[method] = {
            "sample": sample,
            "right": problem.passed[sample],
            "group": len(ranking.groups[0]) if ranking.groups else len(problem.verdicts),
            "pass@1": problem.rate(method, 1),
        }
    return choices
