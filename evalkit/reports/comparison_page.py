"""HTML page that compares several results: pass rates, paired differences, and every problem."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalkit.reports.comparison import Comparison, protocol_name, read_result, source_of, tasks_of
from evalkit.reports.render import render


def write_comparison(path: Path, results: Sequence[Path], comparisons: Sequence[Comparison]) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        results: Results of `evalkit score`.
        comparisons: The first result against each other one, as `comparison.compare` returns them.

    Raises:
        EvalError: A result cannot be read, the page cannot be written, or jinja2 is not installed.
    """
    runs = [
        {"letter": _letter(number), "source": source_of(result), "path": result["path"], "result": result}
        for number, result in enumerate(map(read_result, results))
    ]
    benchmarks = [
        _benchmark(name, runs, [pair for pair in comparisons if pair.benchmark == name])
        for name in dict.fromkeys(comparison.benchmark for comparison in comparisons)
    ]
    render(path, "comparison.html.j2", runs=runs, benchmarks=benchmarks)


def _letter(number: int) -> str:
    """Return the name of a run in the tables: A to Z, then A1, B1 and so on."""
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def _benchmark(name: str, runs: Sequence[dict[str, Any]], pairs: Sequence[Comparison]) -> dict[str, Any]:
    """Return the tables of one benchmark."""
    holders = [run for run in runs if name in run["result"]["scores"]]
    compared_letters = [run["letter"] for run in holders if run is not runs[0]]
    return {
        "name": name,
        "scores": [_score(run, name) for run in holders],
        "pairs": list(zip(compared_letters, pairs, strict=True)),
        "problems": _problems([run["result"] if run in holders else None for run in runs], name),
    }


def _score(run: dict[str, Any], benchmark: str) -> dict[str, Any]:
    result = run["result"]
    score = result["scores"][benchmark]
    return {
        "letter": run["letter"],
        "protocol": protocol_name(result, benchmark),
        "metrics": score.get("interval", {}),
        "solved": score.get("solved"),
        "problems": score.get("problems"),
        "limit": result.get("limit"),
    }


def _problems(results: Sequence[dict[str, Any] | None], benchmark: str) -> list[dict[str, Any]]:
    """Return a row per problem: for each run the numbers of passed and of all samples, or None without samples."""
    tasks_by_run = [tasks_of(result, benchmark) if result is not None else {} for result in results]
    rows = []
    for task in dict.fromkeys(task for tasks in tasks_by_run for task in tasks):
        cells = [_cell(tasks.get(task)) for tasks in tasks_by_run]
        shares = {round(cell["passed"] / cell["total"], 9) for cell in cells if cell}
        rows.append({"task": task, "cells": cells, "same": len(shares) < 2})
    return rows


def _cell(verdicts: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    if not verdicts:
        return None
    return {
        "passed": sum(bool(verdict["passed"]) for verdict in verdicts),
        "total": len(verdicts),
        "title": "; ".join(dict.fromkeys(str(verdict.get("outcome", "")) for verdict in verdicts)),
    }
