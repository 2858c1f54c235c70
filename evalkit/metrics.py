"""pass@k of one benchmark from its verdicts, with intervals over problems."""

from __future__ import annotations

from typing import Any

from evalkit import stats
from evalkit.sandbox.verdict import Verdict

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
    num_samples = min(map(len, judged.values()), default=0)
    scores: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    for k in USUAL_K:
        if k <= num_samples:
            values = [
                stats.pass_at_k(len(verdicts), sum(verdict.passed for verdict in verdicts), k)
                for verdicts in judged.values()
            ]
            estimate = stats.interval(values)
            scores[f"pass@{k}"] = estimate.mean
            intervals[f"pass@{k}"] = estimate.as_dict()
    outcomes: dict[str, int] = {}
    for verdicts in by_task.values():
        for verdict in verdicts:
            outcomes[verdict.outcome] = outcomes.get(verdict.outcome, 0) + 1
    return {
        **scores,
        "interval": intervals,
        "problems": len(judged),
        "solved": sum(any(verdict.passed for verdict in verdicts) for verdicts in judged.values()),
        "samples": sum(map(len, by_task.values())),
        "infra_errors": outcomes.get("infra_error", 0),
        "outcomes": dict(sorted(outcomes.items(), key=lambda item: -item[1])),
    }
