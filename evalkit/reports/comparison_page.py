"""How do several runs stand side by side? One HTML page: pass rates, paired differences, and every problem.

Self-contained, as the page of one run is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalkit.reports.comparison import Comparison, read_result, tasks_of, what_was_scored
from evalkit.reports.score_page import render


def write_comparison(path: Path, results: Sequence[Path], comparisons: Sequence[Comparison]) -> None:
    """Write the page of `results`, the first of which the `comparisons` hold against each other one.

    Raises:
        EvalError: a result cannot be read, the page cannot be written, or jinja2 is not installed.
    """
    read = [read_result(one) for one in results]
    runs = [
        {"letter": _letter(place), "what": what_was_scored(one), "path": one["path"], "result": one}
        for place, one in enumerate(read)
    ]
    names = list(dict.fromkeys(comparison.benchmark for comparison in comparisons))
    benchmarks = {name: [_scored(run, name) for run in runs if name in run["result"]["scores"]] for name in names}
    tables = {
        name: _problems([run["result"] if name in run["result"]["scores"] else None for run in runs], name)
        for name in names
    }
    pairs = {name: [one for one in comparisons if one.benchmark == name] for name in names}
    others = {
        name: [run["letter"] for run in runs[1:] if name in run["result"]["scores"] and name in read[0]["scores"]]
        for name in names
    }
    render(
        path,
        "comparison.html.j2",
        runs=runs,
        benchmarks=benchmarks,
        tables=tables,
        pairs={name: list(zip(others[name], pairs[name], strict=True)) for name in names},
    )


def _letter(place: int) -> str:
    """A to Z, then A1: what a run is called in the table of problems."""
    return chr(ord("A") + place % 26) + (str(place // 26) if place >= 26 else "")


def _scored(run: dict[str, Any], benchmark: str) -> dict[str, Any]:
    result = run["result"]
    score = result["scores"][benchmark]
    protocol = ((result.get("protocol") or {}).get(benchmark) or {}).get("name", "not recorded")
    return {
        "letter": run["letter"],
        "what": run["what"],
        "protocol": protocol,
        "metrics": score.get("interval", {}),
        "solved": score.get("solved"),
        "problems": score.get("problems"),
        "limit": result.get("limit"),
    }


def _problems(results: Sequence[dict[str, Any] | None], benchmark: str) -> list[dict[str, Any]]:
    """Return a row per problem: for each run how many samples pass of how many, or None where it has none."""
    tasks = [tasks_of(one, benchmark) if one is not None else {} for one in results]
    rows = []
    for task in dict.fromkeys(task for of_run in tasks for task in of_run):
        cells: list[dict[str, Any] | None] = []
        for of_run in tasks:
            verdicts = of_run.get(task)
            passed = sum(bool(verdict["passed"]) for verdict in verdicts or ())
            cells.append(
                {
                    "passed": passed,
                    "of": len(verdicts),
                    "title": "; ".join(dict.fromkeys(str(one.get("outcome", "")) for one in verdicts)),
                }
                if verdicts
                else None
            )
        shares = {round(cell["passed"] / cell["of"], 9) for cell in cells if cell}
        rows.append({"task": task, "cells": cells, "same": len(shares) < 2})
    return rows
