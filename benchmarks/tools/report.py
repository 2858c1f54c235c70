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
        f"samples of each. Some attempt of refinement is right in {value_text(tables['oracle_of_attempts'])}.",
        _methods(tables["methods"]),
        "At equal tokens, refinement less the other method, in points:",
        _differences(tables["equal_tokens"]),
        "Answers that were refined, by what happened on the first visible test that failed:",
        _kinds(tables["kinds"]),
        f"Ends of refinement: {', '.join(f'{end} {number}' for end, number in tables['ends'].items())}. If the last of "
        f"equally good attempts were the answer: {_ties(tables['last_of_equals'])} points.",
    ]
    return "\n\n".join(parts)


def _methods(methods: dict[str, Any]) -> str:
    rows = [
        [
            f"`{name}`" if name.startswith(("greedy", "refine")) and "," not in name else name,
            f"{row['tokens']:.0f}",
            value_text(row["pass@1"]),
            "-" if name == "greedy" else value_text(row["over greedy"], sign=True),
        ]
        for name, row in methods.items()
    ]
    return _common.markdown_table(["method", "tokens per problem", "pass@1, %", "over `greedy`"], rows)


def _differences(differences: dict[str, Any]) -> str:
    return _common.markdown_table(
        ["comparison", "difference"], [[name, value_text(value, sign=True)] for name, value in differences.items()]
    )


def _kinds(kinds: dict[str, dict[str, int]]) -> str:
    columns = ("answers", "pass visible tests", "right before", "mended", "broken")
    rows = [[f"`{kind}`", *(str(counts.get(column, 0)) for column in columns)] for kind, counts in kinds.items()]
    return _common.markdown_table(["first failure", *columns], rows)


def _ties(ties: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value_text(value, sign=True)}" for name, value in ties.items())


def value_text(value: dict[str, float], *, sign: bool = False) -> str:
    """Return a mean with its interval."""
    form = "{:+.1f}" if sign else "{:.1f}"
    mean, low, high = (form.format(value[key]) for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"
