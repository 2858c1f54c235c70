"""HTML page of `student-train --evaluate`: a model, or two, beside the teacher on the rows of a cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.outputs.files import read_json, require_writable
from evalkit.reports.render import render
from evalkit.reports.training.measures import MEASURES
from evalkit.text import one_line

FORMAT = 1
"""Format of the results that this module reads."""
_LEAST_STRONG = 0.05
"""Least KL of a token, in nats, that has the full colour."""


def write_model_evaluation(path: Path, result: Path) -> None:
    """Write the page of a result.

    Args:
        path: The HTML file.
        result: The JSON file of `student-train --evaluate`.

    Raises:
        EvalError: The result cannot be read, the page cannot be written, or jinja2 is not installed.
    """
    require_writable(path)
    record = _read(result)
    try:
        render(path, "model_evaluation.html.j2", **_values(record))
    except EvalError:
        raise
    except Exception as error:  # what is missing shows anywhere in the template
        raise EvalError(
            f"{result}: found a result of another form ({one_line(repr(error))}); expected one of student-train "
            "--evaluate"
        ) from None


def _values(record: dict[str, Any]) -> dict[str, Any]:
    """Return the variables of the template."""
    return {
        "teacher": record["shards"]["teacher"]["name"],
        "measures": _measures(record),
        "kinds": _kinds(record),
        "strong": (strong := _strong(record["furthest"])),
        "furthest": [_row(row, strong) for row in record["furthest"]],
        **{name: record[name] for name in ("on", "chosen", "models", "hardware", "command")},
    }


def _read(result: Path) -> dict[str, Any]:
    record = read_json(result, what="a result of 'student-train --evaluate'")
    if not isinstance(record, dict) or "models" not in record or record.get("format") != FORMAT:
        raise EvalError(
            f"{result}: found no evaluation of format {FORMAT}; expected the JSON of student-train --evaluate"
        )
    return record


def _measures(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each measure: its label, the interval of each model, and the difference, if any."""
    names = dict.fromkeys(name for model in record["models"] for name in model["measures"])
    differences = record.get("differences", {})
    return [
        {
            "label": MEASURES[name].label.removeprefix("held-out ") if name in MEASURES else name,
            "models": [model["measures"].get(name) for model in record["models"]],
            "difference": differences.get(name),
        }
        for name in names
    ]


def _kinds(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each kind of token, with the length of each model's bar; [] across tokenizers."""
    by_model = [model.get("kinds", {}) for model in record["models"]]
    if not all(by_model):
        return []
    largest = max(kind["mean"] for kinds in by_model for kind in kinds.values())
    differences = record.get("kinds_differences", {})
    rows = []
    for name, first in by_model[0].items():
        intervals = [kinds[name] for kinds in by_model]
        bars = [max(0.0, 100 * interval["mean"] / max(largest, 1e-9)) for interval in intervals]
        rows.append(
            {
                "name": name,
                "tokens": first["tokens"],
                "models": list(zip(intervals, bars, strict=True)),
                "difference": differences.get(name),
            }
        )
    return sorted(rows, key=lambda row: -row["tokens"])


def _row(row: dict[str, Any], strong: float) -> dict[str, Any]:
    """Return a row of text; each piece has the colour of its KL, or of the difference of two, if it has one."""
    if not row["piece_kl"]:
        return {**row, "pieces": [{"text": "".join(row["pieces"]), "title": "", "strength": 0}]}
    pieces = [
        {
            "text": piece,
            "side": "more" if strength > 0 else "less",
            "strength": round(min(1.0, abs(strength) / strong), 3),
            "title": ", ".join(f"{kl[i]:.2f}" for kl in row["piece_kl"]) + " nats",
        }
        for i, (piece, strength) in enumerate(zip(row["pieces"], _strengths(row["piece_kl"]), strict=True))
    ]
    return {**row, "pieces": pieces}


def _strengths(piece_kl: Sequence[Sequence[float]]) -> list[float]:
    if not piece_kl:
        return []
    if len(piece_kl) == 1:
        return [max(0.0, kl) for kl in piece_kl[0]]
    return [first - second for first, second in zip(*piece_kl, strict=True)]


def _strong(rows: Sequence[dict[str, Any]]) -> float:
    """Return the strength, in nats, of the full colour: one in a hundred tokens has more."""
    strengths = sorted(abs(strength) for row in rows for strength in _strengths(row["piece_kl"]))
    return max(_LEAST_STRONG, strengths[int(0.99 * len(strengths))] if strengths else 0.0)
