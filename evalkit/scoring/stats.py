"""pass@k, confidence intervals over problems, and paired differences.

Problems (or documents) are the unit of resampling, because samples of one problem are not independent. All intervals
are 95%. The seed is fixed, so equal data gives equal intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 10_000
"""Bootstrap resamples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean and its 95 percent interval."""

    mean: float
    low: float
    high: float
    method: str
    """`bootstrap` over units, or `wilson` where all values are 0 or all are 1, for which a bootstrap has no width."""

    def to_dict(self) -> dict[str, Any]:
        """Return all fields."""
        return asdict(self)


def pass_at_k(num_samples: int, num_passed: int, k: int) -> float:
    """Return the unbiased estimate 1 - C(n-c, k) / C(n, k) of pass@k (arXiv 2107.03374, eq. 1).

    Args:
        num_samples: n, the number of samples of the problem.
        num_passed: c, the number of samples that pass.
        k: Number of samples drawn.

    Raises:
        ValueError: There are fewer than k samples.
    """
    if num_samples < k:
        raise ValueError(f"pass@{k} needs at least {k} samples, found {num_samples}")
    if num_samples - num_passed < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(num_samples - num_passed + 1, num_samples + 1))


def interval(values: Sequence[float]) -> Estimate:
    """Return the mean of per-problem values in [0, 1] with its bootstrap interval over problems."""
    import numpy as np

    data = np.asarray(values, dtype=float)
    mean = float(data.mean())
    if data.min() == data.max() and mean in (0.0, 1.0):
        low, high = _wilson(mean, len(data))
        return Estimate(mean=mean, low=low, high=high, method="wilson")
    means = _resample(data[:, None], len(data)) / len(data)
    low, high = np.quantile(means[:, 0], [0.025, 0.975])
    return Estimate(mean=mean, low=float(low), high=float(high), method="bootstrap")


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Return the ratio of sums with its bootstrap interval; resamples units (documents) of unequal size."""
    import numpy as np

    data = np.stack([np.asarray(numerators, float), np.asarray(denominators, float)], axis=1)
    sums = _resample(data, len(data))
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    total = data.sum(axis=0)
    return Estimate(mean=float(total[0] / total[1]), low=float(low), high=float(high), method="bootstrap")


def ratio_difference(first: Sequence[float], second: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Return (sum(first) - sum(second)) / sum(denominators) with its paired bootstrap interval."""
    return ratio([ours - theirs for ours, theirs in zip(first, second, strict=True)], denominators)


def difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Return the mean of first - second, problem by problem, with its paired bootstrap interval."""
    import numpy as np

    data = np.asarray(first, float) - np.asarray(second, float)
    means = _resample(data[:, None], len(data)) / len(data)
    low, high = np.quantile(means[:, 0], [0.025, 0.975])
    return Estimate(mean=float(data.mean()), low=float(low), high=float(high), method="bootstrap")


def _resample(data: np.ndarray[Any, Any], num_units: int) -> np.ndarray[Any, Any]:
    """Return the column sums of `num_units` rows drawn with replacement: (RESAMPLES, columns)."""
    import numpy as np

    return np.concatenate([counts @ data for counts in _counts(num_units)])


@lru_cache(maxsize=1)
def _counts(num_units: int) -> tuple[np.ndarray[Any, Any], ...]:
    """Return how often each unit is drawn in each resample, in batches: (RESAMPLES, num_units) together.

    The counts depend on nothing else, and drawing them takes far longer than using them: 40 MB for 500 units.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    shares = np.full(num_units, 1.0 / num_units)
    # The number of times that each unit is drawn is multinomial. Floating-point counts are multiplied without copies.
    return tuple(generator.multinomial(num_units, shares, size=500).astype(float) for _ in range(RESAMPLES // 500))


def _wilson(share: float, num: int) -> tuple[float, float]:
    """Return the Wilson score interval of a share of `num` units."""
    z = 1.959964
    centre = (share + z * z / (2 * num)) / (1 + z * z / num)
    half = z * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num)) / (1 + z * z / num)
    return max(0.0, centre - half), min(1.0, centre + half)
