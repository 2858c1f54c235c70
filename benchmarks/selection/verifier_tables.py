"""Tables of the verifiers: their quality, what they add, and what embeddings of the programs add."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _common
from benchmarks.selection.cells import TITLES, cell, signed, title
from benchmarks.selection.heads import DETAILS, KINDS

Result = dict[str, Any]
QUALITY = ("kind", "tasks", "AUC", "within tasks", "Brier score", "wrong choices")


def read_verifiers(models: Iterable[str], scratch: Path) -> dict[str, Any]:
    """Return what the report of each model's verifier says of its quality."""
    paths = {model: scratch / model / "verifier" / "report.json" for model in models}
    return {model: _quality(path) for model, path in paths.items() if path.exists()}


def read_heads(models: Iterable[str], scratch: Path) -> dict[str, Any]:
    """Return the quality of the verifiers of `benchmarks.selection.heads`: model -> kind -> quality and details."""
    heads: dict[str, Any] = {}
    for model in models:
        for kind in KINDS:
            details = scratch / model / f"verifier-{kind}" / DETAILS
            if details.exists():
                quality = _quality(details.with_name("report.json"))
                heads.setdefault(model, {})[kind] = {**quality, **json.loads(details.read_bytes())}
    return heads


def _quality(path: Path) -> dict[str, Any]:
    """Return the quality, the kind and the first features in the report of a verifier."""
    report = json.loads(path.read_bytes())
    quality = {key: value for key, value in report["quality"].items() if key not in ("scores", "differences")}
    features = dict(list(report["features"].items())[:6])
    return {**quality, "chosen": report["model"]["chosen"], "features": features}


def verifier_tables(verifiers: Result, scored: Sequence[Result]) -> list[str]:
    """Return the quality of each verifier, and its differences to other methods at equal samples."""
    rows = [[TITLES.get(model, model), *_quality_cells(row)] for model, row in verifiers.items()]
    lines = [*_common.markdown_table(("verifier of", *QUALITY), rows).splitlines(), "", "pass@1 at equal samples:", ""]
    others = ("random", "majority", "srank", "combined")
    gains = [
        [title(result), cell(first), *(signed(first[f"over {other}"]) for other in others)]
        for result in scored
        if (first := result["methods"].get("verifier", {}).get("pass@1"))
    ]
    return [
        *lines,
        *_common.markdown_table(["samples", "`verifier`", *(f"over `{o}`" for o in others)], gains).splitlines(),
    ]


def head_tables(heads: Result) -> list[str]:
    """Return a table for each model: the verifier with and without a checkpoint's embeddings."""
    lines = []
    for model, kinds in heads.items():
        first = next(iter(kinds.values()))
        rows = [[KINDS[kind], *_quality_cells(row), f"{row['seconds']} s"] for kind, row in kinds.items()]
        lines += [
            f"{TITLES.get(model, model)}, one task in {first['part']}, {first['samples']} samples of each:",
            "",
            *_common.markdown_table(("reads", *QUALITY, "training"), rows).splitlines(),
            "",
            *sorted({row["where"] for row in kinds.values()}),
            "",
        ]
    return lines


def _quality_cells(row: Result) -> list[str]:
    return [
        row["chosen"],
        str(row["tasks"]),
        _number(row["auc"]),
        _number(row["auc_within_tasks"]),
        f"{_number(row['brier'])} ({_number(row['brier_of_share'])})",
        f"{row['wrong_choices']} of {row['tasks_with_right']}",
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
