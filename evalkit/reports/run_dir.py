"""The files that a training run leaves beside its checkpoint, read and checked.

A run's folder holds `run.json` (settings, shards, final metrics), `metrics.jsonl` (the curve), `held_out.jsonl` (one
line per held-out row, in nats) and `completions.json` (texts for people to read). Its control, trained on the same
tokens with cross-entropy only, lies in the subfolder `control`. Optional keys may be missing; nothing is made up for
them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.outputs.files import read_json
from evalkit.scoring import stats


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One training run as its files tell it."""

    folder: Path
    record: dict[str, Any]
    """`run.json`."""
    curve: tuple[dict[str, float], ...]
    """Lines of `metrics.jsonl`; empty when there is none."""
    held_out: dict[tuple[str, int], dict[str, float]]
    """Lines of `held_out.jsonl` by (document, window); empty when there is none."""
    completions: dict[str, dict[str, str]]
    """`completions.json`: role (teacher, student) -> prompt -> what the model wrote; empty when there is none."""

    @property
    def label(self) -> str:
        return {"kd": "distilled", "sft": "control"}.get(str(self.record.get("objective")), "trained")

    def get(self, *keys: str) -> Any:
        """Return what lies at a path of keys in the record, or None."""
        value: Any = self.record
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def files_of(folder: Path) -> list[Path]:
    """Return the files that a report of this run reads, its control's and its HumanEval results included."""
    names = ("run.json", "metrics.jsonl", "held_out.jsonl", "completions.json", "evalkit/score.json")
    return [part / name for part in (folder, folder / "control") for name in names if (part / name).is_file()]


def read_run(folder: Path) -> Run:
    """Read a run's files.

    Raises:
        EvalError: the folder or run.json is missing, or a file is broken; names the file and line.
    """
    if not folder.is_dir():
        raise EvalError(f"{folder}: no such folder; expected the --out folder of student-train")
    path = folder / "run.json"
    if not path.is_file():
        raise EvalError(f"{folder}: holds no run.json; expected the --out folder of a finished student-train")
    record = read_json(path, what="the record of a training run")
    if not isinstance(record, dict) or record.get("format") != 1:
        found = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise EvalError(f"{path}: format {found!r}, expected 1; use an evalkit of the same version as student-train")
    sums = ("window", "tokens", "bytes", *(numerator for numerator, _, _ in MEASURES.values()))
    rows = _read_lines(folder / "held_out.jsonl", ("document", "window", "tokens", "bytes"), sums)
    return Run(
        folder=folder,
        record=record,
        curve=tuple(_read_lines(folder / "metrics.jsonl", ("step", "loss"), ("step", "loss"))),
        held_out={(str(row["document"]), int(row["window"])): row for row in rows},
        completions=_read_completions(folder / "completions.json"),
    )


def _read_completions(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    told = read_json(path, what="the completions of a training run")
    try:
        if told["format"] != 1:
            raise EvalError(f"{path}: format {told['format']!r}, expected 1; use an evalkit of student-train's version")
        prompts = [str(prompt) for prompt in told["prompts"]]
        return {
            str(role): dict(zip(prompts, map(str, texts), strict=True)) for role, texts in told["completions"].items()
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, EvalError):
            raise
        raise EvalError(
            f"{path}: holds no completions ({type(error).__name__}: {error}), expected one text for each prompt; "
            "remove it, or run student-train again"
        ) from None


def _read_lines(path: Path, keys: tuple[str, ...], numbers: tuple[str, ...]) -> list[dict[str, Any]]:
    """Read a JSON object from each line; each has the `keys`, and what it has of `numbers` are numbers."""
    if not path.is_file():
        return []
    rows = []
    try:
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise EvalError(f"{path} line {number}: is not JSON ({error}); run student-train again") from None
            if not isinstance(row, dict):
                raise EvalError(f"{path} line {number}: is not a JSON object; run student-train again")
            if missing := [key for key in keys if key not in row]:
                raise EvalError(f"{path} line {number}: lacks {', '.join(missing)}; run student-train again")
            for key in numbers:
                if key in row and (isinstance(row[key], bool) or not isinstance(row[key], int | float)):
                    raise EvalError(f"{path} line {number}: {key} is no number; run student-train again")
            rows.append(row)
    except OSError as error:
        raise EvalError(f"{path}: cannot be read ({error.strerror}); expected a file of student-train") from error
    return rows


MEASURES: dict[str, tuple[str, str, float]] = {
    "kl": ("kl_sum", "tokens", 1.0),
    "bits_per_byte": ("nll_sum", "bytes", 1.0 / math.log(2.0)),
    "top1_agreement": ("top1_sum", "tokens", 1.0),
}
"""Held-out measures by name: what is summed, over what, and the factor to the measure's unit."""


def paired_difference(first: Run, second: Run, measure: str) -> stats.Estimate | None:
    """Return first - second on the rows that both were measured on, with its bootstrap over documents.

    None when the runs were not measured on the same rows, so that nothing can be paired.
    """
    numerator, denominator, factor = MEASURES[measure]
    if not first.held_out or first.held_out.keys() != second.held_out.keys():
        return None
    documents: dict[str, list[float]] = {}
    for (document, window), row in first.held_out.items():
        other = second.held_out[document, window]
        if numerator not in row or numerator not in other:
            return None
        sums = documents.setdefault(document, [0.0, 0.0, 0.0])
        sums[0] += factor * row[numerator]
        sums[1] += factor * other[numerator]
        sums[2] += row[denominator]
    ours, theirs, sizes = zip(*documents.values(), strict=True)
    return stats.ratio_difference(ours, theirs, sizes)
