"""The tables of docs/results/tools.md and its JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks.tools import refinement
from benchmarks.tools.plan import Plan
from evalkit.tasks.registry import title_of

TITLES = {"qwen": "Qwen2.5-Coder-0.5B-Instruct", "smollm2": "SmolLM2-135M-Instruct"}
"""Names of models in the page, by the names of their options."""
BEGIN, END = "<!-- refinement: begin -->", "<!-- refinement: end -->"


def write(plan: Plan, out: Path) -> None:
    """Replace the tables of refinement in the page by those of the finished stages."""
    results: dict[str, Any] = {}
    for task in plan.tasks:
        for model in plan.models:
            if records := refinement.read_records(plan, model, task):
                results[f"{model} {task}"] = refinement.tables(records)
    if not results:
        return
    page, data = out / "tools.md", out / "tools.json"
    old = json.loads(data.read_bytes()) if data.exists() else {}
    _common.write_json(data, old | {"refinement": results, "refinement_where": _common.provenance()})
    text = "\n\n".join(_section(*name.split(" "), tables=tables) for name, tables in results.items())
    _common.replace_section(page, text, begin=BEGIN, end=END)


def _section(model: str, task: str, *, tables: dict[str, Any]) -> str:
    """Return the tables of one model and benchmark."""
    parts = [
        f"### {TITLES.get(model, model)}, {title_of(task)}",
        f"{tables['problems']} problems, {tables['with_visible_tests']} of which show tests; {tables['samples']} "
        "samples of each.",
        _methods(tables["methods"]),
        "At equal tokens, refinement less the other method, in points:",
        _differences(tables["equal_tokens"]),
        "Answers that were refined, by what happened on the first visible test that failed:",
        _kinds(tables["forms"]),
        *(_form(form, figures) for form, figures in tables["forms"].items()),
    ]
    return "\n\n".join(parts)


def _form(form: str, figures: dict[str, Any]) -> str:
    """Return the other figures of one form, as one paragraph."""
    return (
        f"`{form}`: some attempt is right in {value_text(figures['oracle_of_attempts'])} % of the problems. Ends: "
        f"{', '.join(f'{end} {number}' for end, number in figures['ends'].items())}. If the last of equally good "
        f"attempts were the answer: {value_text(figures['last_of_equals'], sign=True)} points."
    )


def _methods(methods: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{row['tokens']:.0f}",
            value_text(row["pass@1"]),
            "-" if name == "greedy" else value_text(row["over greedy"], sign=True),
        ]
        for name, row in methods.items()
    ]
    return _common.markdown_table(["method", "tokens per problem", "pass@1, %", "over greedy"], rows)


def _differences(differences: dict[str, Any]) -> str:
    return _common.markdown_table(
        ["comparison", "difference"], [[name, value_text(value, sign=True)] for name, value in differences.items()]
    )


def _kinds(forms: dict[str, Any]) -> str:
    columns = ("answers", "pass visible tests", "right before", "mended", "broken")
    rows = [
        [f"`{form}`", f"`{kind}`", *(str(counts.get(column, 0)) for column in columns)]
        for form, figures in forms.items()
        for kind, counts in figures["kinds"].items()
    ]
    return _common.markdown_table(["form", "first failure", *columns], rows)


def value_text(value: dict[str, float], *, sign: bool = False) -> str:
    """Return a mean with its interval."""
    form = "{:+.1f}" if sign else "{:.1f}"
    mean, low, high = (form.format(value[key]) for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"
