"""Read and check the files that a training run leaves beside its checkpoint.

`run.json` holds settings, shards and final metrics; `metrics.jsonl` the training curve; `held_out.jsonl` one line per
held-out row, in nats; `completions.json` sample texts. The subfolder `control` holds the control run, trained on the
same tokens with cross-entropy only. Optional keys may be missing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.outputs.files import read_json

_HELD_OUT_NUMBERS = (
    *("window", "tokens", "bytes", "kl_sum", "nll_sum", "top1_sum"),
    *("cache", "chunk_kl_sum", "chunks", "cell_kl_sum", "boundaries"),
)
"""Keys of a line of `held_out.jsonl` that must be numbers where they are present."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRun:
    """Content of the files of one training run."""

    folder: Path
    record: dict[str, Any]
    """Content of `run.json`."""
    curve: tuple[dict[str, float], ...]
    """Lines of `metrics.jsonl`; empty without the file."""
    held_out: dict[tuple[str, int, int], dict[str, float]]
    """Lines of `held_out.jsonl` by (document, window, number of the cache, 0 for one); empty without the file."""
    completions: dict[str, dict[str, str]]
    """Content of `completions.json`: role (teacher, student) -> prompt -> text; empty without the file."""

    @property
    def label(self) -> str:
        """Name of the run's column: `distilled`, `control` or `trained`."""
        return {"kd": "distilled", "sft": "control"}.get(str(self.record.get("objective")), "trained")

    def get(self, *keys: str) -> Any:
        """Return the value at a path of keys in the record, or None."""
        value: Any = self.record
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def files_of(folder: Path) -> list[Path]:
    """Return the files that a report of this run reads, including its control's and their scores."""
    names = ("run.json", "metrics.jsonl", "held_out.jsonl", "completions.json", "evalkit/score.json")
    return [part / name for part in (folder, folder / "control") for name in names if (part / name).is_file()]


def read_run(folder: Path) -> TrainingRun:
    """Read a run's files.

    Raises:
        EvalError: The folder or run.json is missing, or a file is broken; names the file and line.
    """
    if not folder.is_dir():
        raise EvalError(f"{folder}: no such folder; expected the --out folder of student-train")
    path = folder / "run.json"
    if not path.is_file():
        raise EvalError(f"{folder}: holds no run.json; expected the --out folder of a finished student-train")
    record = read_json(path, what="the record of a training run")
    if not isinstance(record, dict) or record.get("format") != 1:
        version = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise EvalError(f"{path}: format {version!r}, expected 1; use an evalkit of the same version as student-train")
    rows = _read_lines(folder / "held_out.jsonl", ("document", "window", "tokens", "bytes"), _HELD_OUT_NUMBERS)
    return TrainingRun(
        folder=folder,
        record=record,
        curve=tuple(_read_lines(folder / "metrics.jsonl", ("step", "loss"), ("step", "loss"))),
        held_out={(str(row["document"]), int(row["window"]), int(row.get("cache", 0))): row for row in rows},
        completions=_read_completions(folder / "completions.json"),
    )


def _read_completions(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    record = read_json(path, what="the completions of a training run")
    try:
        if record["format"] != 1:
            raise EvalError(
                f"{path}: format {record['format']!r}, expected 1; use an evalkit of student-train's version"
            )
        prompts = [str(prompt) for prompt in record["prompts"]]
        return {
            str(role): dict(zip(prompts, map(str, texts), strict=True)) for role, texts in record["completions"].items()
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, EvalError):
            raise
        raise EvalError(
            f"{path}: holds no completions ({type(error).__name__}: {error}), expected one text for each prompt; "
            "remove it, or run student-train again"
        ) from None


def _read_lines(path: Path, keys: tuple[str, ...], numbers: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the JSON object of each line; each must have all `keys`, and its values of `numbers` must be numbers."""
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
