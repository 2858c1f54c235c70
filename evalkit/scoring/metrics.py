"""pass@k of one benchmark from its verdicts, with intervals over problems."""

from __future__ import annotations

from typing import Any

from evalkit.sandbox.verdict import Verdict
from evalkit.scoring import stats

USUAL_K = (1, 2, 5, 10, 50, 100)


def summarise(by_task: dict[str, list[Verdict]]) -> dict[str, Any]:
    """Return pass@k for the usual k, with intervals over problems, and how often each outcome came.

    A sample that could not be judged (`infra_error`) is no answer: it is counted in `infra_errors` and is in no
    numerator or denominator. A problem without any other sample is left out. k goes up to the fewest samples that
    a problem has left.
    """
    judged = {
        task_id: answers
        for task_id, verdicts in by_task.items()
        if (answers := [verdict for verdict in verdicts if verdict.outcome != "infra_error"])
    }
    scores, intervals = _estimates({id_: [one.passed for one in verdicts] for id_, verdicts in judged.items()})
    outcomes: dict[str, int] = {}
    for verdicts in by_task.values():
        for verdict in verdicts:
            outcomes[verdict.outcome] = outcomes.get(verdict.outcome, 0) + 1
    return {
        **scores,
        **_of_base_inputs(judged),
        "interval": intervals,
        "problems": len(judged),
        "solved": sum(any(verdict.passed for verdict in verdicts) for verdicts in judged.values()),
        "samples": sum(map(len, by_task.values())),
        "infra_errors": outcomes.get("infra_error", 0),
        "outcomes": dict(sorted(outcomes.items(), key=lambda item: -item[1])),
    }


def _estimates(passed: dict[str, list[bool]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Return pass@k and its interval by name, for every usual k up to the fewest samples of a problem."""
    scores: dict[str, float] = {}
    intervals: dict[str, Any] = {}
    fewest = min(map(len, passed.values()), default=0)
    for k in USUAL_K:
        if k <= fewest:
            estimate = stats.interval([stats.pass_at_k(len(marks), sum(marks), k) for marks in passed.values()])
            scores[f"pass@{k}"] = estimate.mean
            intervals[f"pass@{k}"] = estimate.as_dict()
    return scores, intervals


def _of_base_inputs(judged: dict[str, list[Verdict]]) -> dict[str, Any]:
    """Return `base`, the same on the tasks' own inputs alone, where EvalPlus' inputs were asked; else nothing."""
    if not judged or any(one.base_passed is None for verdicts in judged.values() for one in verdicts):
        return {}
    passed = {task_id: [bool(one.base_passed) for one in verdicts] for task_id, verdicts in judged.items()}
    scores, intervals = _estimates(passed)
    return {"base": {**scores, "interval": intervals, "solved": sum(any(marks) for marks in passed.values())}}
