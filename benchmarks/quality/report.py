"""Page, figure and JSON of the scores of all runs.

Share of the gap of a method m: (cross-entropy only - m) / (cross-entropy only - full distribution), in held-out KL to
the teacher and in held-out cross-entropy. Intervals: 95 %, percentile bootstrap over held-out documents and seeds at
once, with the same resamples for all methods, so that what is common to them (hard documents, lucky seeds) cancels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.quality.plan import METHODS, PILOT_FOLDER, SEEDS, SETTINGS, Method, Run, Setting, settings
from benchmarks.quality.text import ANSWER, MEANING, SETUP

RESAMPLES = 10_000
GOAL_BYTES, GOAL_SHARE = 26.0, 0.95
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
        return np.take_along_axis(by_seed_RSX, seeds_RS[:, :, None], 1).sum(1)

    def errors_R(self, bins_SDBX: Array) -> Array:
        """Return the calibration error of each drawn seed, averaged over seeds."""
        errors_RS = _calibration(np.einsum("rd,sdbx->rsbx", self.times_RD, bins_SDBX))
        return np.take_along_axis(errors_RS, self.seeds_RS(len(bins_SDBX)), 1).mean(1)


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


def write(scratch: Path, out: Path) -> None:
    """Write the page, the figure and the JSON of the finished runs."""
    chosen = settings(scratch / PILOT_FOLDER)
    ends = [load(scratch, METHODS[name], chosen[name]) for name in ("full", "ce")]
    # A share needs both ends of the gap at its seed.
    seeds = tuple(seed for seed in SEEDS if all(end is not None and seed in end.seeds for end in ends))
    if not seeds:
        raise SystemExit(f"{scratch}: found no seed with runs of full and ce, expected at least one")
    every = {name: load(scratch, method, chosen[name], seeds) for name, method in METHODS.items()}
    runs = {name: found for name, found in every.items() if found is not None}
    table = lines(runs)
    out.mkdir(parents=True, exist_ok=True)
    (out / "distillation_quality.json").write_text(json.dumps(_numbers(table), indent=1) + "\n")
    (out / "distillation_quality.md").write_text(_page(scratch, table))
    picture(table, out / "distillation_quality.png")


def _numbers(table: list[Line]) -> dict[str, Any]:
    """Return all numbers of the page, with the sums of every run and document."""
    methods = {}
    for line in table:
        runs = line.runs
        numbers = {
            name: [round(x, 4) for x in (value.mean, value.low, value.high)]
            for name in ("kl", "nll", "calibration", "agreement", "share_kl", "share_nll")
            for value in (getattr(line, name),)
        }
        methods[runs.method.name] = {
            "title": runs.method.title,
            "bytes_per_token": runs.bytes_per_token,
            "entries": runs.entries,
            "seeds": list(runs.seeds),
            **numbers,
            "share_kl_by_seed": [round(share, 2) for share in line.share_kl_by_seed],
            "kl_and_nll_by_seed_and_document": np.round(runs.sums_SDX[:, :, :2], 2).tolist(),
        }
    some = table[0].runs
    return {
        "positions_by_document": some.sums_SDX[0, :, 3].astype(int).tolist(),
        "methods": methods,
    }


def picture(table: list[Line], path: Path) -> None:
    """Plot bytes per token against the closed share of the gap."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = {"draws": "#1a7f5a", "sampled": "#4063d8", "bucket": "#c77d0a", "top": "#b0413e"}
    figure, axes = pyplot.subplots(figsize=(8, 4.8), layout="constrained")
    axes.axhline(100, color="#374151", linewidth=1)
    axes.axhline(0, color="#374151", linewidth=1)
    for line in table:
        size, share = line.runs.bytes_per_token, line.share_kl
        if size is None:
            continue
        colour = colours[line.runs.method.name.split("-")[0]]
        whiskers = [[share.mean - share.low], [share.high - share.mean]]
        axes.errorbar(size, share.mean, whiskers, fmt="o", color=colour, markersize=6, capsize=3, linewidth=1.2)
        drawn = line.runs.method.kind == "draws"
        axes.annotate(
            f"c = {line.runs.method.amount:g}" if drawn else line.runs.method.title,
            (size, share.mean),
            xytext=(-8 if drawn else 8, 0),
            textcoords="offset points",
            ha="right" if drawn else "left",
            va="center",
            fontsize=8.5,
            color=colour,
        )
    axes.set(xlabel="bytes per token", ylabel="share of the gap in KL that is closed, %", xlim=(0, 45))
    bottom, top = axes.get_ylim()
    top = max(top, 110.0)
    axes.set_ylim(bottom, top)
    axes.fill_between([0, GOAL_BYTES], 100 * GOAL_SHARE, top, color="#1a7f5a", alpha=0.08, linewidth=0)
    axes.annotate("the goal", (0.4, top), xytext=(0, -11), textcoords="offset points", fontsize=8.5, color="#1a7f5a")
    axes.set_title("Green: head plus draws at several thresholds c; bars are 95 % intervals", fontsize=10, loc="left")
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _page(scratch: Path, table: list[Line]) -> str:
    chosen = settings(scratch / PILOT_FOLDER)
    facts = json.loads(Run(method=METHODS["full"], seed=SEEDS[0], setting=chosen["full"]).file(scratch).read_bytes())
    sums = table[0].runs.sums_SDX[0].sum(0)
    rows = [
        "| method | distinct ids | bytes per token | share of the gap in KL, % | share of the gap in cross-entropy, % "
        "| KL to the teacher, nat | cross-entropy, nat | calibration error, % | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for line in table:
        runs = line.runs
        rows.append(
            f"| {runs.method.title} | {_or_dash(runs.entries)} | {_or_dash(runs.bytes_per_token)} | "
            f"{line.share_kl.show(1)} | {line.share_nll.show(1)} | {line.kl.show(3)} | "
            f"{line.nll.show(3)} | {line.calibration.show(1)} | {len(runs.seeds)} |"
        )
    by_seed = "; ".join(
        f"{line.runs.method.title}: {', '.join(f'{share:.1f}' for share in line.share_kl_by_seed)}"
        for line in table
        if line.runs.method.kind
    )
    setup = SETUP.format(
        windows=facts["train"]["windows"],
        train=facts["train"]["positions"],
        held_documents=len(table[0].runs.sums_SDX[0]),
        held=int(sums[3]),
        parameters=facts["parameters"] / 1e6,
        own=_told(chosen["full"]),
        ce_own=_told(chosen["ce"]),
        sampled_own=_own_layout(next(line for line in table if line.runs.method.name == "sampled-50")),
    )
    return "\n".join(
        [
            "# Student quality by kind of record",
            "",
            _answer(table),
            "",
            *rows,
            "",
            "In brackets: 95 % intervals over held-out documents and seeds.",
            "",
            "![share of the gap against bytes per token](distillation_quality.png)",
            "",
            setup.strip(),
            "",
            *_pilot(scratch),
            "",
            f"Share of the gap in KL seed by seed, %: {by_seed}.",
            "",
            MEANING.strip(),
            "",
        ]
    )


def _answer(table: list[Line]) -> str:
    by_name = {line.runs.method.name: line for line in table}
    draws, sampled, fewer = by_name["draws-0.04"], by_name["sampled-50"], by_name["sampled-25"]
    assert draws.runs.bytes_per_token is not None
    met = draws.share_kl.mean >= 100 * GOAL_SHARE and draws.runs.bytes_per_token <= GOAL_BYTES
    sure = draws.share_kl.low >= 100 * GOAL_SHARE
    verdict = (
        ("met, the whole interval above it" if sure else "met by the mean, not by all of the interval")
        if met
        else "missed"
    )
    return ANSWER.strip().format(
        draws=draws.share_kl.show(1),
        draws_bytes=draws.runs.bytes_per_token,
        verdict=verdict,
        sampled=sampled.share_kl.show(1),
        sampled_bytes=sampled.runs.bytes_per_token,
        sampled_own=_own_layout(sampled),
        fewer=fewer.share_kl.show(1),
        fewer_bytes=fewer.runs.bytes_per_token,
        fewer_own=_own_layout(fewer),
    )


def _own_layout(line: Line) -> float:
    """Return the bytes of RS-KD in its authors' packing: a 17-bit id and a 7-bit count per distinct id."""
    assert line.runs.entries is not None
    return 3 * line.runs.entries


def _told(setting: Setting) -> str:
    return f"{setting.peak:g} and {setting.eps:g}"


def _pilot(scratch: Path) -> list[str]:
    """Return the table of the pilot's settings."""
    rows = [
        "| learning rate | epsilon | full distribution: KL, nat | cross-entropy only: cross-entropy, nat |",
        "|---|---|---|---|",
    ]
    for setting in SETTINGS:
        full, ce = (load(scratch / PILOT_FOLDER, METHODS[name], setting) for name in ("full", "ce"))
        if full is not None and ce is not None:
            sums = full.sums_SDX[0].sum(0), ce.sums_SDX[0].sum(0)
            figures = f"{sums[0][0] / sums[0][3]:.3f} | {sums[1][1] / sums[1][3]:.3f}"
            rows.append(f"| {setting.peak:g} | {setting.eps:g} | {figures} |")
    return ["The pilot: half of the text, seed 0.", "", *rows]


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
