"""Standard errors and 95 % intervals over documents: bootstrap, as windows of one document are not independent.

Shapes: D documents, R resamples, C columns.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_RESAMPLES = 2000

Interval = dict[str, float]
"""`mean`, `low` and `high` (percentiles of the resamples), and `standard_error` (their standard deviation).

One document says nothing about others: it has a `mean` alone.
"""


class DocumentSums:
    """Sums over the rows of each document, and resamples of them.

    A fixed seed makes the same documents give the same interval.
    """

    def __init__(self, documents: Sequence[str]) -> None:
        """Prepare resamples.

        Args:
            documents: The document of each row; at least one row.
        """
        names = sorted(set(documents))
        index = {name: i for i, name in enumerate(names)}
        self._index = np.array([index[name] for name in documents])
        self._num = len(names)
        self._counts_RD = _counts(self._num)

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return self._num

    def by_document(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the sums [D, ...] of values of rows [rows, ...]."""
        rows = np.asarray(values, np.float64)
        sums = np.zeros((self._num, *rows.shape[1:]))
        np.add.at(sums, self._index, rows)
        return sums

    def resampled(self, sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the totals [R, ...] of sums [D, ...] over resampled documents."""
        totals = self._counts_RD @ sums.reshape(self._num, -1)
        return totals.reshape(_RESAMPLES, *sums.shape[1:])

    def ratios(self, above: npt.ArrayLike, below: npt.ArrayLike) -> list[Interval]:
        """Return the ratio of two sums over all rows with its interval, for each column; NaN where `below` is 0.

        Args:
            above: Numerators [rows, C].
            below: Denominators [rows, C].
        """
        return self.intervals(*self._ratios(above, below))

    def ratio_differences(
        self, first: tuple[npt.ArrayLike, npt.ArrayLike], second: tuple[npt.ArrayLike, npt.ArrayLike]
    ) -> list[Interval]:
        """Return the difference of two ratios on the same rows, first minus second, with its paired interval.

        Args:
            first: Numerators and denominators [rows, C].
            second: The same for what is subtracted.
        """
        means, samples = self._ratios(*first)
        other_means, other_samples = self._ratios(*second)
        return self.intervals(means - other_means, samples - other_samples)

    def intervals(self, means: npt.NDArray[np.float64], samples: npt.NDArray[np.float64]) -> list[Interval]:
        """Return the interval of each column.

        Args:
            means: Values over all documents [C].
            samples: Values over resampled documents [R, C]; NaN for a resample that holds nothing to divide by.
        """
        if self._num == 1:
            return [{"mean": float(mean)} for mean in means]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, about a column of NaN
            lows, highs = np.nanpercentile(samples, [2.5, 97.5], axis=0)
            errors = np.nanstd(samples, axis=0)
        return [
            {"mean": float(mean), "low": float(low), "high": float(high), "standard_error": float(error)}
            for mean, low, high, error in zip(means, lows, highs, errors, strict=True)
        ]

    def _ratios(
        self, above: npt.ArrayLike, below: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the ratios [C] over all rows and over resampled documents [R, C]."""
        tops, bottoms = self.by_document(above), self.by_document(below)
        with np.errstate(divide="ignore", invalid="ignore"):
            return tops.sum(axis=0) / bottoms.sum(axis=0), self.resampled(tops) / self.resampled(bottoms)


def interval_text(interval: Interval, form: str = ".4f") -> str:
    """Return an interval for people, each number in a format: `mean [low, high]`, or the mean of one document."""
    text = f"{interval['mean']:{form}}"
    return f"{text} [{interval['low']:{form}}, {interval['high']:{form}}]" if "low" in interval else text


def known_figures(figures: dict[str, Interval]) -> dict[str, Interval]:
    """Return the figures that are numbers: rows without a shared boundary, say, have nothing to divide by."""
    return {name: interval for name, interval in figures.items() if math.isfinite(interval["mean"])}


def _counts(num: int) -> npt.NDArray[np.float64]:
    """Return how often each of `num` documents is drawn in each resample [R, D]."""
    random = np.random.RandomState(0)
    draws = (random.randint(num, size=num) for _ in range(_RESAMPLES))
    return np.stack([np.bincount(draw, minlength=num) for draw in draws]).astype(np.float64)
