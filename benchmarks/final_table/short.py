"""The short form of the table, for the README: models with the figures that tell them apart, and one selector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks.final_table.jobs import Setup
from benchmarks.final_table.page import KLS, applies, begun, cell
from benchmarks.final_table.tables import Column, rows

BEGIN, END = "<!-- final table -->", "<!-- /final table -->"


def write_short(setup: Setup, found: dict[str, Any], page: Path) -> None:
    """Write the short form between its markers in a page."""
    _common.replace_section(page, short_form(setup, found), begin=BEGIN, end=END)


def short_form(setup: Setup, found: dict[str, Any]) -> str:
    """Return the table as Markdown: every model and the choices of the recipe's last selector, where it has figures."""
    chosen = _columns(setup, found)
    choices = ("", *setup.recipe.selection.selectors[-1:])
    shown = [row for row in rows(setup) if row.choice in choices and any(applies(row, column) for column in chosen)]
    cells = [
        [row.title, *(cell(found["rows"][row.key].get(column.key), row, column) for column in chosen)] for row in shown
    ]
    titles = [f"{column.title}{'' if column.is_score else f' on held-out {column.task}'}" for column in chosen]
    return _common.markdown_table(("", *titles), cells)


def _columns(setup: Setup, found: dict[str, Any]) -> Sequence[Column]:
    """Return greedy pass@1, pass@1 of samples once a selector has chosen among them, and the KL of the last cache."""
    columns_begun = begun(setup, found)
    firsts = [column for column in columns_begun if column.is_score and column.k == 1 and column.task[-1] != "+"]
    choices = [row for row in rows(setup) if row.choice in setup.recipe.selection.selectors]
    scores = [
        column
        for column in firsts
        if column.kind == "greedy" or any(column.key in found["rows"][row.key] for row in choices)
    ]
    return [*scores, *[column for column in columns_begun if column.measure in KLS][-1:]]
