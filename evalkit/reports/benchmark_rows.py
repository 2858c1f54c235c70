"""Rows of the distillation report about benchmarks: every benchmark and metric that the score files hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit.reports.score_file import ScoreFile, Verdicts, read_score
from evalkit.scoring import stats
from evalkit.tasks.registry import title_of

NOT_SCORED = "not scored"
_FIRST_METRIC = "pass@1"


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkRow:
    """One metric of one benchmark, as text: percentages with their intervals."""

    label: str
    run: str
    control: str
    difference: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkRows:
    """All rows of a run, with remarks about them."""

    rows: tuple[BenchmarkRow, ...]
    remarks: tuple[str, ...] = field(default=())


def results_of(folder: Path, results: Sequence[ScoreFile]) -> list[ScoreFile]:
    """Return the results that score the checkpoint in `folder`; `FOLDER/evalkit/score.json` if none does."""
    matching = []
    for result in results:
        if result.checkpoint and Path(result.checkpoint).resolve() == folder.resolve():
            matching.append(result)
    own = folder / "evalkit" / "score.json"
    return matching or ([read_score(own)] if own.is_file() else [])


def benchmark_rows(run: Sequence[ScoreFile], control: Sequence[ScoreFile]) -> BenchmarkRows:
    """Return a row for each benchmark and metric in the results of a run and of its control.

    Without any result there is one row, which says that HumanEval is not scored.
    """
    remarks: list[str] = []
    rows: list[BenchmarkRow] = []
    for name in _benchmarks((*run, *control)):
        remarks += _remarks(name, (*run, *control))
        for part in ("", "base"):
            for metric in _metrics(name, part, (*run, *control)):
                first, second = _holder(run, name, part, metric), _holder(control, name, part, metric)
                rows.append(
                    BenchmarkRow(
                        label=_label(name, part, metric),
                        run=_cell(first, name, part, metric),
                        control=_cell(second, name, part, metric),
                        difference=_difference(first, second, name, part, metric),
                    )
                )
    if not rows:
        rows = [BenchmarkRow(label=_label("humaneval", "", _FIRST_METRIC), run=NOT_SCORED, control=NOT_SCORED)]
    return BenchmarkRows(rows=tuple(rows), remarks=tuple(dict.fromkeys(remarks)))


def _benchmarks(results: Sequence[ScoreFile]) -> Iterator[str]:
    return iter(dict.fromkeys(name for result in results for name in result.scores))


def _label(name: str, part: str, metric: str) -> str:
    return f"{title_of(name)}{', base inputs:' if part else ''} {metric}, %"


def _part(result: ScoreFile, name: str, part: str) -> Mapping[str, Any]:
    """Return the score of a benchmark, or its `base` part; {} where the result lacks it."""
    score = result.scores.get(name) or {}
    return (score.get(part) or {}) if part else score


def _metrics(name: str, part: str, results: Sequence[ScoreFile]) -> list[str]:
    """Return the metrics in any of the results; pass@1 of a benchmark even if no sample could be executed."""
    metrics = dict.fromkeys(metric for result in results for metric in _part(result, name, part).get("interval", {}))
    return list(metrics) or ([] if part else [_FIRST_METRIC])


def _holder(results: Sequence[ScoreFile], name: str, part: str, metric: str) -> ScoreFile | None:
    """Return the first result that holds the metric."""
    return next((result for result in results if metric in _part(result, name, part).get("interval", {})), None)


def _cell(result: ScoreFile | None, name: str, part: str, metric: str) -> str:
    if result is None:
        return NOT_SCORED
    score = _part(result, name, part)
    interval = score["interval"][metric]
    mean = score.get(metric, interval["mean"])
    return f"{100 * mean:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _difference(first: ScoreFile | None, second: ScoreFile | None, name: str, part: str, metric: str) -> str:
    """Return the paired difference over the problems that both results hold; "" where there is none."""
    if first is None or second is None:
        return ""
    tasks = first.tasks_of(name), second.tasks_of(name)
    shared = [task_id for task_id in tasks[0] if task_id in tasks[1]]
    k, key = _k_of(metric), "base_passed" if part else "passed"
    if not shared or not k or any(len(by_task[task_id]) < k for by_task in tasks for task_id in shared):
        return ""
    values = [
        [stats.pass_at_k(len(by_task[task_id]), _num_passed(by_task[task_id], key), k) for task_id in shared]
        for by_task in tasks
    ]
    estimate = stats.difference(values[0], values[1])
    return f"{100 * estimate.mean:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def _k_of(metric: str) -> int:
    """Return k of pass@k; 0 for another metric."""
    name, _, k = metric.partition("@")
    return int(k) if name == "pass" and k.isdecimal() else 0


def _num_passed(verdicts: Verdicts, key: str) -> int:
    return sum(bool(verdict.get(key)) for verdict in verdicts)


def _remarks(name: str, results: Sequence[ScoreFile]) -> list[str]:
    remarks = []
    for result in results:
        score = _part(result, name, "")
        if not score.get("interval"):
            continue
        if result.limit:
            remarks.append(f"{title_of(name)}: only the first {result.limit} problems were scored")
        elif score.get("solved") == 0:
            remarks.append(
                f"{title_of(name)}: none of {score.get('problems')} solved, which says little about a model this small"
            )
    return remarks
