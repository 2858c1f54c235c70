"""Methods, seeds and settings of the experiment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quality.records import BASE, Record

SEEDS = (0, 1, 2, 3, 4)
"""Seeds of the initial weights and of the order of the windows. All students of a method read the same cache."""
FEWER_SEEDS = SEEDS[:3]


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Settings that the pilot chooses."""

    peak: float
    """Peak learning rate."""
    eps: float
    """AdamW's epsilon."""


SETTINGS = (
    Setting(peak=2e-3, eps=1e-5),
    Setting(peak=4e-3, eps=1e-5),
    Setting(peak=8e-3, eps=1e-5),
    Setting(peak=4e-3, eps=1e-8),
)
"""Settings of the pilot, tried with the full distribution and with cross-entropy."""
PILOT_FOLDER = "pilot"
PILOT_WINDOWS = (160, 192)
"""The pilot trains on the training windows before the first index and scores those from there to the second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One way to train a student."""

    name: str
    title: str
    divergence: str | None
    """A divergence of `student_train.losses.divergences`, `full` for the dense one, None for cross-entropy only."""
    kind: str = ""
    """Kind of its record, "" for none."""
    amount: float = 0.0
    """Amount of its record."""

    @property
    def record(self) -> Record:
        """The record that it trains on; a method without a record uses only the tokens."""
        return Record(kind=self.kind, amount=self.amount) if self.kind else BASE


def _draws(c: float) -> Method:
    title = f"head plus draws, c = {c:g}"
    return Method(name=f"draws-{c:g}", title=title, divergence="forward-kl", kind="draws", amount=c)


def _sampled(n: int) -> Method:
    return Method(name=f"sampled-{n}", title=f"RS-KD, N = {n}", divergence="forward-kl", kind="sampled", amount=n)


def _bucket(k: int) -> Method:
    title = f"top {k} with bucket"
    return Method(name=f"bucket-{k}", title=title, divergence="bucket-forward-kl", kind="top", amount=k)


def _top(k: int) -> Method:
    return Method(name=f"top-{k}", title=f"top {k}, renormalised", divergence="top-k", kind="top", amount=k)


METHODS = {
    method.name: method
    for method in (
        Method(name="full", title="full distribution", divergence="full"),
        Method(name="ce", title="cross-entropy only", divergence=None),
        _draws(0.04),
        _sampled(50),
        _bucket(7),
        _top(7),
        _draws(0.1),
        _draws(0.02),
        _sampled(25),
    )
}
MAIN = ("full", "ce", "draws-0.04", "sampled-50", "bucket-7", "top-7")
"""Methods that run first."""
CLOSE = ("full", "ce", "draws-0.04", "sampled-50", "sampled-25")
"""Methods that run at all seeds, because their differences are small."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One student."""

    method: Method
    seed: int
    setting: Setting

    def file(self, scratch: Path) -> Path:
        """Return the file of its scores."""
        return scratch / f"run-{self.method.name}-{self.seed}-{self.setting.peak:g}-{self.setting.eps:g}.json"


PILOT = [Run(method=METHODS[name], seed=0, setting=setting) for setting in SETTINGS for name in ("full", "ce")]


def settings(pilot: Path) -> dict[str, Setting]:
    """Return the setting of each method.

    Methods that estimate the full distribution use its best setting. Cross-entropy uses its own best setting, so that
    both ends of the gap are tuned.
    """

    def best(name: str, what: str) -> Setting:
        def mean(run: Run) -> float:
            scores = json.loads(run.file(pilot).read_bytes())["scores"]
            return float(sum(score[what] for score in scores) / sum(score["positions"] for score in scores))

        return min((run for run in PILOT if run.method.name == name), key=mean).setting

    return {**dict.fromkeys(METHODS, best("full", "kl_sum")), "ce": best("ce", "nll_sum")}


def runs(pilot: Path) -> list[Run]:
    """Return all runs in execution order."""
    chosen = settings(pilot)
    others = [name for name in METHODS if name not in MAIN]
    order = [(seed, name) for group in (MAIN, others) for seed in FEWER_SEEDS for name in group]
    order += [(seed, name) for seed in SEEDS if seed not in FEWER_SEEDS for name in CLOSE]
    return [Run(method=METHODS[name], seed=seed, setting=chosen[name]) for seed, name in order]
