"""HTML page that compares several results: pass rates, paired differences, and every problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.reports.comparison import Comparison
from evalkit.reports.render import render
from evalkit.reports.score_file import ScoreFile, Verdicts, read_score


def write_comparison(path: Path, results: Sequence[Path], comparisons: Sequence[Comparison]) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        results: Results of `evalkit score`.
        comparisons: The first result against each other one, as `comparison.compare` returns them.

    Raises:
        EvalError: A result cannot be read, the page cannot be written, or jinja2 is not installed.
    """
    runs = [_Run(letter=_letter(number), score=read_score(result)) for number, result in enumerate(results)]
    benchmarks = [
        _benchmark(name, runs, [pair for pair in comparisons if pair.benchmark == name])
        for name in dict.fromkeys(comparison.benchmark for comparison in comparisons)
    ]
    render(path, "comparison.html.j2", runs=runs, benchmarks=benchmarks)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """One result under the letter that names it on the page."""

    letter: str
    score: ScoreFile


def _letter(number: int) -> str:
    """Return the name of a run in the tables: A to Z, then A1, B1 and so on."""
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def _benchmark(name: str, runs: Sequence[_Run], pairs: Sequence[Comparison]) -> dict[str, Any]:
    """Return the tables of one benchmark."""
    holders = [run for run in runs if name in run.score.scores]
    compared_letters = [run.letter for run in holders if run is not runs[0]]
    return {
        "name": name,
        "scores": [_score(run, name) for run in holders],
        "pairs": list(zip(compared_letters, pairs, strict=True)),
        "problems": _problems([run.score.tasks_of(name) if run in holders else {} for run in runs]),
    }


def _score(run: _Run, benchmark: str) -> dict[str, Any]:
    score = run.score.scores[benchmark]
    return {
        "letter": run.letter,
        "protocol": run.score.protocol_of(benchmark),
        "metrics": score.get("interval", {}),
        "solved": score.get("solved"),
        "problems": score.get("problems"),
        "limit": run.score.limit,
    }


def _problems(tasks_by_run: Sequence[Mapping[str, Verdicts]]) -> list[dict[str, Any]]:
    """Return a row per problem: for each run the numbers of passed and of all samples, or None without samples."""
    rows = []
    for task in dict.fromkeys(task for tasks in tasks_by_run for task in tasks):
        cells = [_cell(tasks.get(task)) for tasks in tasks_by_run]
        shares = {round(cell["passed"] / cell["total"], 9) for cell in cells if cell}
        rows.append({"task": task, "cells": cells, "same": len(shares) < 2})
    return rows


def _cell(verdicts: Verdicts | None) -> dict[str, Any] | None:
    if not verdicts:
        return None
    return {
        "passed": sum(bool(verdict["passed"]) for verdict in verdicts),
        "total": len(verdicts),
        "title": "; ".join(dict.fromkeys(str(verdict.get("outcome", "")) for verdict in verdicts)),
    }
