"""How sure are we? pass@k, intervals over problems, paired comparison.

Problems (or documents) are the unit of every resampling: samples of one problem are not independent. All
intervals are 95 percent. Seeds are fixed, so the same data always gives the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean and its 95 percent interval."""

    mean: float
    low: float
    high: float
    method: str
    """`bootstrap` over the units, or `wilson` where all are equal and a bootstrap would show no doubt."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def pass_at_k(num_samples: int, num_passed: int, k: int) -> float:
    """Return the unbiased estimate 1 - C(n-c, k) / C(n, k) of pass@k (arXiv 2107.03374, eq. 1).

    Raises:
        ValueError: fewer than k samples.
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
    """Return sum/sum with its bootstrap interval, resampling units (documents) of unequal size."""
    import numpy as np

    data = np.stack([np.asarray(numerators, float), np.asarray(denominators, float)], axis=1)
    sums = _resample(data, len(data))
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    total = data.sum(axis=0)
    return Estimate(mean=float(total[0] / total[1]), low=float(low), high=float(high), method="bootstrap")


def ratio_difference(first: Sequence[float], second: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Return (sum(first) - sum(second)) / sum(denominators) with the interval of the paired bootstrap."""
    return ratio([one - two for one, two in zip(first, second, strict=True)], denominators)


def difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Return the mean of first - second, problem by problem, with the interval of the paired bootstrap."""
    import numpy as np

    data = np.asarray(first, float) - np.asarray(second, float)
    means = _resample(data[:, None], len(data)) / len(data)
    low, high = np.quantile(means[:, 0], [0.025, 0.975])
    return Estimate(mean=float(data.mean()), low=float(low), high=float(high), method="bootstrap")


def _resample(data: np.ndarray[Any, Any], num_units: int) -> np.ndarray[Any, Any]:
    """Return the column sums of RESAMPLES draws of `num_units` rows with replacement."""
    import numpy as np

    generator = np.random.default_rng(0)
    sums = np.empty((RESAMPLES, data.shape[1]))
    # How often each row is drawn is multinomial; a batch of counts times the data is fast and small.
    for start in range(0, RESAMPLES, 500):
        counts = generator.multinomial(num_units, np.full(num_units, 1.0 / num_units), size=500)
        sums[start : start + 500] = counts @ data
    return sums


def _wilson(share: float, num: int) -> tuple[float, float]:
    z = 1.959964
    centre = (share + z * z / (2 * num)) / (1 + z * z / num)
    half = z * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num)) / (1 + z * z / num)
    return max(0.0, centre - half), min(1.0, centre + half)
