"""Figures of one run of a recipe, and of several runs together.

A run is one scratch folder. A table may be the work of several runs, such as one on another machine whose folder is
gone: their figures are kept as JSON, and `join` fills the cells of the first run from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.final_table.costs import finished
from benchmarks.final_table.jobs import Job, Setup
from benchmarks.final_table.spending import spent
from benchmarks.final_table.tables import read, rows, table


def collect(setup: Setup, jobs: Sequence[Job], *, recipe: str) -> dict[str, Any]:
    """Return all figures that the finished stages of a folder allow."""
    marks = [read(setup.scratch / "marks" / f"{job.stage.name}.json") for job in jobs]
    run = {
        "recipe": recipe,
        "stages": len(jobs),
        "finished": sum(finished(job.stage, setup.scratch) is not None for job in jobs),
        "provenance": sorted({mark["provenance"] for mark in marks if mark}),
    }
    return {
        "title": setup.recipe.title,
        "runs": [run],
        "rows": table(setup),
        "spent": {row.key: spent(setup, jobs, row) for row in rows(setup)},
        "best": read(setup.scratch / "best.json"),
        "nearest": read(setup.scratch / "nearest.json"),
    }


def join(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of several runs: each cell has the figure of the first run that has one.

    A figure keeps its differences, which are between figures of its own run, and says by `run` whose it is, from 1 on.
    """
    keys = dict.fromkeys(key for run in runs for key in run["rows"])
    return {
        "title": runs[0]["title"],
        "runs": [part for run in runs for part in run["runs"]],
        "rows": {key: _row(runs, key) for key in keys},
        "spent": {key: _first([run["spent"].get(key) for run in runs]) for key in keys},
        "best": _first([run["best"] for run in runs]),
        "nearest": _nearest([run["nearest"] for run in runs]),
    }


def mark(number: int) -> str:
    """Return the mark of a figure of a run; none for the first one."""
    return "" if number == 1 else "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(number))


def _row(runs: Sequence[dict[str, Any]], key: str) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for number, run in enumerate(runs, start=1):
        for column, entry in run["rows"].get(key, {}).items():
            entries.setdefault(column, entry | {"run": number})
    return entries


def _first(values: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    return next((value for value in values if value), {})


def _nearest(values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the distances of all caches; those of later runs have the mark of their run."""
    caches = {
        f"{name}{mark(number)}": entry
        for number, value in enumerate(values, start=1)
        for name, entry in value.get("caches", {}).items()
    }
    return _first(values) | ({"caches": caches} if caches else {})
