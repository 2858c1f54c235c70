"""The score stage: pass@k of one benchmark from its verdicts, with intervals over problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.sandbox.verdict import Verdict
from evalkit.scoring.stats import Estimate, interval, pass_at_k

USUAL_K = (1, 2, 5, 10, 50, 100)
"""Values of k for which pass@k is reported, up to the number of samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PassRates:
    """pass@k of a set of problems."""

    estimates: dict[str, Estimate]
    """Estimates by name, such as `pass@1`."""
    solved: int
    """Problems of which at least one sample passed."""

    def to_dict(self) -> dict[str, Any]:
        """Return means by name, and `interval` with all estimates."""
        return {
            **{name: estimate.mean for name, estimate in self.estimates.items()},
            "interval": {name: estimate.to_dict() for name, estimate in self.estimates.items()},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkScore:
    """Score of one benchmark."""

    rates: PassRates
    base_rates: PassRates | None
    """For EvalPlus benchmarks: rates on the base inputs alone. None elsewhere."""
    problems: int
    """Problems with at least one verdict other than `infra_error`."""
    samples: int
    outcomes: dict[str, int]
    """Number of samples by outcome, the most frequent first."""

    @property
    def infra_errors(self) -> int:
        """Number of samples that the sandbox could not execute."""
        return self.outcomes.get("infra_error", 0)

    def to_dict(self) -> dict[str, Any]:
        """Return the score as the result holds it."""
        base = {"base": {**self.base_rates.to_dict(), "solved": self.base_rates.solved}} if self.base_rates else {}
        means = self.rates.to_dict()
        intervals = means.pop("interval")
        return {
            **means,
            **base,
            "interval": intervals,
            "problems": self.problems,
            "solved": self.rates.solved,
            "samples": self.samples,
            "infra_errors": self.infra_errors,
            "outcomes": self.outcomes,
        }


def summarise(by_task: Mapping[str, Sequence[Verdict]]) -> BenchmarkScore:
    """Return pass@k for the usual k, with intervals over problems, and the number of each outcome.

    A sample that could not be executed (`infra_error`) is in no numerator or denominator. A problem without any other
    sample is left out. k is at most the smallest number of samples that a problem has left.

    Args:
        by_task: Verdicts of a problem's samples, by task id.
    """
    checked = {
        task_id: checked_verdicts
        for task_id, verdicts in by_task.items()
        if (checked_verdicts := [verdict for verdict in verdicts if verdict.outcome != "infra_error"])
    }
    outcomes = Counter(verdict.outcome for verdicts in by_task.values() for verdict in verdicts)
    return BenchmarkScore(
        rates=_pass_rates([[verdict.passed for verdict in verdicts] for verdicts in checked.values()]),
        base_rates=_base_rates(checked),
        problems=len(checked),
        samples=sum(map(len, by_task.values())),
        outcomes=dict(sorted(outcomes.items(), key=lambda item: -item[1])),
    )


def _pass_rates(passed: Sequence[Sequence[bool]]) -> PassRates:
    """Return pass@k for every usual k up to the smallest number of samples of a problem."""
    fewest = min(map(len, passed), default=0)
    estimates = {
        f"pass@{k}": interval([pass_at_k(len(marks), sum(marks), k) for marks in passed])
        for k in USUAL_K
        if k <= fewest
    }
    return PassRates(estimates=estimates, solved=sum(any(marks) for marks in passed))


def _base_rates(checked: Mapping[str, Sequence[Verdict]]) -> PassRates | None:
    """Return the rates on base inputs alone, if all verdicts record them."""
    if not checked or any(verdict.base_passed is None for verdicts in checked.values() for verdict in verdicts):
        return None
    return _pass_rates([[bool(verdict.base_passed) for verdict in verdicts] for verdicts in checked.values()])
