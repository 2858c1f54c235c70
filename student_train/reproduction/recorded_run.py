"""A finished run as its files record it: settings, digests of weights, losses by step, and held-out rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from student_train.errors import TrainError

if TYPE_CHECKING:  # the command line reads records before it needs torch
    from student_train.objectives.row_score import Measure

_REQUIRED = ("config", "student", "train", "held_out")
"""Parts of every record."""

RowKey = tuple[str, int, int]
"""Document and window of a held-out row, and the number of its cache: 0 for the only one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedRun:
    """The record of a finished run and what lies beside it."""

    name: str
    """Path of the record, for messages."""
    record: dict[str, Any]
    """Content of `run.json`."""
    losses: dict[int, float]
    """Loss of each step; steps without a token to learn have none."""
    rows: dict[RowKey, dict[str, Any]]
    """Lines of `held_out.jsonl`: sums over the positions of each held-out row."""

    @classmethod
    def read(cls, path: Path) -> RecordedRun:
        """Read the record at a path, and the logs beside it. Logs that are missing read as empty.

        Raises:
            TrainError: A file is damaged, or the record is none.
        """
        record = read_record(path)
        lines = {name: _lines(path.with_name(name)) for name in ("metrics.jsonl", "held_out.jsonl")}
        try:
            losses = {int(line["step"]): float(line["loss"]) for line in lines["metrics.jsonl"]}
            rows = {_row_key(line): line for line in lines["held_out.jsonl"]}
        except (KeyError, TypeError, ValueError) as error:
            raise TrainError(
                f"{path.parent}: found a damaged log ({error!r}), expected those of a finished run"
            ) from None
        return cls(name=str(path), record=record, losses=losses, rows=rows)

    @property
    def checkpoints(self) -> dict[int, str]:
        """Digest of the parameters that train, by step; {} for runs of releases that recorded none."""
        return {int(step): digest for step, digest in self.record.get("weights", {}).get("checkpoints", {}).items()}

    @property
    def exported(self) -> str:
        """Digest of the exported tensors; "" for runs of releases that recorded none."""
        return str(self.record.get("weights", {}).get("exported", ""))

    @property
    def manifests(self) -> list[str]:
        """Digests of the manifests of the caches that the run was trained on."""
        return [str(entry["manifest_sha256"]) for entry in self.entries]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Manifest and share of each cache, as `Mixture.entries` of complete caches has them."""
        caches = self.record.get("caches", [self.record])
        return [{"manifest_sha256": str(cache["manifest_sha256"]), "share": cache.get("share")} for cache in caches]

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What was measured on all held-out rows."""
        from student_train.objectives import cross_tokenizer, same_tokenizer
        from student_train.objectives.row_score import BITS_PER_BYTE

        if len({entry["objective"] for entry in self.record.get("caches", [])}) > 1:
            return (BITS_PER_BYTE,)
        has_other_tokenizer = "other_tokenizer" in self.record["student"]
        return cross_tokenizer.MEASURES if has_other_tokenizer else same_tokenizer.MEASURES


def _row_key(line: dict[str, Any]) -> RowKey:
    return str(line["document"]), int(line["window"]), int(line.get("cache", 0))


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a run's record.

    Raises:
        TrainError: It is missing, damaged, or not the record of a finished run.
    """
    try:
        record = dict(json.loads(path.read_bytes()))
        for key in _REQUIRED:
            dict(record[key])
        return record
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainError(f"{path}: found no run's record ({error}); expected the run.json of a finished run") from None


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log; [] without one."""
    try:
        return [dict(json.loads(line)) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise TrainError(f"{path}: found a damaged log ({error}), expected one JSON object a line") from None
