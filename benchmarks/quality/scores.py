"""Scores of all runs with bootstrap intervals.

Share of the gap of a method m: (cross-entropy only - m) / (cross-entropy only - full distribution), in held-out KL to
the teacher and in held-out cross-entropy. Intervals: 95 %, percentile bootstrap over held-out documents and seeds at
once, with the same resamples for all methods, so that what is common to them (hard documents, lucky seeds) cancels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.quality.plan import SEEDS, Method, Run, Setting

RESAMPLES = 10_000
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """The runs of one method in one setting, one per seed."""

    method: Method
    seeds: tuple[int, ...]
    sums_SDX: Array
    """Per seed and document: KL and -log probability in nats, agreements, positions."""
    bins_SDBX: Array
    """Per seed, document and range of confidence: positions, sum of confidence, hits."""
    bytes_per_token: float | None
    entries: float | None
    seconds: float
    """Mean seconds of training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """A measurement and its 95 % interval."""

    mean: float
    low: float
    high: float

    def show(self, digits: int) -> str:
        """Return it as `1.23 (1.20 to 1.26)`."""
        return f"{self.mean:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def load(scratch: Path, method: Method, setting: Setting, seeds: tuple[int, ...] = SEEDS) -> Runs | None:
    """Return the finished runs of a method in a setting, or None."""
    found = []
    for seed in seeds:
        path = Run(method=method, seed=seed, setting=setting).file(scratch)
        if path.exists():
            found.append(json.loads(path.read_bytes()))
    if not found:
        return None
    keys = ("kl_sum", "nll_sum", "same_sum", "positions")
    return Runs(
        method=method,
        seeds=tuple(run["seed"] for run in found),
        sums_SDX=np.array([[[score[key] for key in keys] for score in run["scores"]] for run in found], np.float64),
        bins_SDBX=np.array([[score["bins"] for score in run["scores"]] for run in found], np.float64),
        bytes_per_token=_mean_or_none([run["bytes_per_token"] for run in found]),
        entries=_mean_or_none([run["entries"] for run in found]),
        seconds=float(np.mean([run["seconds"] for run in found])),
    )


def _mean_or_none(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of the table."""

    runs: Runs
    kl: Number
    """Held-out KL to the teacher, nats per token."""
    nll: Number
    """Held-out cross-entropy, nats per token."""
    calibration: Number
    """Expected calibration error, percent."""
    agreement: Number
    """Positions where teacher and student have the same most likely token, percent."""
    share_kl: Number
    """Closed share of the gap in KL, percent."""
    share_nll: Number
    """Closed share of the gap in cross-entropy, percent."""
    share_kl_by_seed: tuple[float, ...]


class Resamples:
    """Bootstrap draws of documents and seeds, common to all methods."""

    def __init__(self, documents: int) -> None:
        rng = np.random.RandomState(0)
        picks = rng.randint(documents, size=(RESAMPLES, documents))
        self.times_RD = np.stack([np.bincount(pick, minlength=documents) for pick in picks]).astype(np.float64)
        self._uniform_RS = rng.random_sample((RESAMPLES, len(SEEDS)))

    def seeds_RS(self, count: int) -> npt.NDArray[np.int64]:
        """Return bootstrap draws of the seeds."""
        return (self._uniform_RS[:, :count] * count).astype(np.int64)

    def sums_RX(self, values_SDX: Array) -> Array:
        """Return the sums over drawn documents and seeds."""
        by_seed_RSX = np.einsum("rd,sdx->rsx", self.times_RD, values_SDX)
        seeds_RS = self.seeds_RS(len(values_SDX))
        sums_RX: Array = np.take_along_axis(by_seed_RSX, seeds_RS[:, :, None], 1).sum(1)
        return sums_RX

    def errors_R(self, bins_SDBX: Array) -> Array:
        """Return the calibration error of each drawn seed, averaged over seeds."""
        errors_RS = _calibration(np.einsum("rd,sdbx->rsbx", self.times_RD, bins_SDBX))
        mean_R: Array = np.take_along_axis(errors_RS, self.seeds_RS(len(bins_SDBX)), 1).mean(1)
        return mean_R


def lines(runs: dict[str, Runs]) -> list[Line]:
    """Return the lines of the table; a method without all seeds is compared on its own seeds."""
    resamples = Resamples(runs["full"].sums_SDX.shape[1])
    found = []
    for one in runs.values():
        ce, full = (_only(runs[name], one.seeds) for name in ("ce", "full"))
        sums = (one.sums_SDX, ce, full)
        means = [values.sum((0, 1))[None] for values in sums]
        drawn = [resamples.sums_RX(values) for values in sums]
        found.append(
            Line(
                runs=one,
                kl=_number(_ratio(means, 0, 3), _ratio(drawn, 0, 3)),
                nll=_number(_ratio(means, 1, 3), _ratio(drawn, 1, 3)),
                agreement=_number(100 * _ratio(means, 2, 3), 100 * _ratio(drawn, 2, 3)),
                calibration=_number(
                    100 * _calibration(one.bins_SDBX.sum(1)).mean(keepdims=True),
                    100 * resamples.errors_R(one.bins_SDBX),
                ),
                share_kl=_number(_share(means, 0), _share(drawn, 0)),
                share_nll=_number(_share(means, 1), _share(drawn, 1)),
                share_kl_by_seed=tuple(
                    float(_share([values[s : s + 1].sum((0, 1))[None] for values in sums], 0)[0])
                    for s in range(len(one.seeds))
                ),
            )
        )
    return found


def _only(runs: Runs, seeds: tuple[int, ...]) -> Array:
    return runs.sums_SDX[[runs.seeds.index(seed) for seed in seeds]]


def _ratio(sums: list[Array], above: int, below: int) -> Array:
    return sums[0][:, above] / sums[0][:, below]


def _share(sums: list[Array], what: int) -> Array:
    """Return the share of the gap in percent; `sums` are of the method, cross-entropy only, and full distribution."""
    own, ce, full = (values[:, what] for values in sums)
    return 100 * (ce - own) / (ce - full)


def _calibration(bins: Array) -> Array:
    """Return mean |confidence - hits| over ranges of confidence [..., B, 3], weighted by their positions."""
    found: Array = np.abs(bins[..., 1] - bins[..., 2]).sum(-1) / bins[..., 0].sum(-1)
    return found


def _number(mean: Array, drawn_R: Array) -> Number:
    low, high = np.percentile(drawn_R, [2.5, 97.5])
    return Number(mean=float(mean[0]), low=float(low), high=float(high))
