"""Titles and cells of the page's tables."""

from __future__ import annotations

from typing import Any

from evalkit.tasks.registry import title_of

TITLES = {
    "qwen2.5-coder-0.5b-instruct": "Qwen2.5-Coder-0.5B-Instruct",
    "smollm2-135m-instruct": "SmolLM2-135M-Instruct",
}
"""Names of models in the page, by the names of their folders; others are named as their folder."""
NUM_TASKS = {"mbpp": 500}
"""Tasks of a benchmark of which a run may score a part (`--mbpp-part`)."""


def title(result: dict[str, Any]) -> str:
    """Return model and benchmark of a dataset, and which part of the benchmark it is."""
    name = f"{TITLES.get(result['model'], result['model'])}, {title_of(result['task'])}"
    scored = result["facts"]["problems"] + result["facts"]["left_out"]
    whole = NUM_TASKS.get(result["task"], scored)
    return name if scored == whole else f"{name} (a fixed random part: {scored} of {whole} tasks)"


def cell(value: dict[str, float] | None) -> str:
    """Return a mean with its interval."""
    return "-" if value is None else f"{value['mean']:.1f} ({value['low']:.1f} to {value['high']:.1f})"


def signed(value: dict[str, float] | None) -> str:
    """Return a difference with its interval."""
    return "-" if value is None else f"{value['mean']:+.1f} ({value['low']:+.1f} to {value['high']:+.1f})"
