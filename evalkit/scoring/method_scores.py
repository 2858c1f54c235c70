"""Scores of methods that choose among the same samples: pass@k, and paired differences to one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.scoring.stats import Estimate, difference, interval


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodScore:
    """Score of one method."""

    estimates: dict[str, Estimate]
    """Estimates by metric, such as `pass@1`."""
    differences: dict[str, Estimate]
    """Mean over problems of this method less the baseline, by metric."""

    def to_dict(self) -> dict[str, Any]:
        """Return means by metric, and `interval` with all estimates."""
        return {
            **{metric: estimate.mean for metric, estimate in self.estimates.items()},
            "interval": {metric: estimate.to_dict() for metric, estimate in self.estimates.items()},
        }

    def differences_dict(self) -> dict[str, Any]:
        """Return the differences with their intervals, by metric."""
        return {metric: estimate.to_dict() for metric, estimate in self.differences.items()}


def score_methods(rates: Mapping[str, Mapping[str, Sequence[float]]], *, baseline: str) -> dict[str, MethodScore]:
    """Return the score of each method, with bootstrap intervals over problems.

    Args:
        rates: Method -> metric -> one value in [0, 1] for each problem, in one order for all methods. A metric without
            any problem has no estimate.
        baseline: The method that the others are compared with; a key of `rates`.
    """
    scores = {}
    for method, by_metric in rates.items():
        known = {metric: values for metric, values in by_metric.items() if len(values)}
        scores[method] = MethodScore(
            estimates={metric: interval(values) for metric, values in known.items()},
            differences={metric: difference(values, rates[baseline][metric]) for metric, values in known.items()},
        )
    return scores
