"""Verdicts on answers: the JSON of `evalkit score`. With --verdicts, only answers that passed are recorded.

evalkit numbers the samples of a file by their order among those of their task. Its result names the digest of the file,
so verdicts are matched by that order with the same file, and refused for another. A result without a file is of samples
that evalkit generated; its verdicts are matched by `index`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.storage.atomic import file_sha256
from teacher_dump.corpus.document import Drop
from teacher_dump.errors import DumpError

FAILED, MISSING = "answer did not pass", "answer without a verdict"
"""Reasons under which answers are dropped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdicts:
    """Whether answers passed, by task and number. Make it with `Verdicts.load`."""

    passed: dict[str, tuple[bool, ...]]
    by_order: bool
    """Whether an answer's number is its order in the file; otherwise it is its `index`."""
    sha256: str
    """Digest of the file, hex. It is part of a cache's identity."""

    @classmethod
    def load(cls, path: Path, *, data: str) -> Verdicts:
        """Read a result of `evalkit score`.

        Args:
            path: The JSON file.
            data: The value of --data, whose answers were scored.

        Raises:
            DumpError: The file cannot be read, is no such result, or is of the samples of another file.
        """
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise DumpError(f"--verdicts {path}: cannot read ({error.strerror or error}); check the path") from None
        try:
            result = dict(json.loads(raw))
            passed = _passed(result["tasks"])
            samples = result.get("samples")
            scored_sha256 = None if samples is None else str(samples["sha256"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DumpError(
                f"--verdicts {path}: not a result of `evalkit score` ({error!r}); expected the file of its --json"
            ) from None
        if scored_sha256 is not None:
            _require_same_file(path, data, scored_sha256)
        return cls(passed=passed, by_order=scored_sha256 is not None, sha256=hashlib.sha256(raw).hexdigest())

    def drop(self, task_id: str, number: int | None) -> Drop | None:
        """Return why an answer is dropped, None if it passed.

        Args:
            task_id: Problem of the answer.
            number: Its number: see `by_order`.
        """
        verdicts = self.passed.get(task_id, ())
        if number is None or number >= len(verdicts):
            return Drop(MISSING, f"{task_id or 'no task_id'}, number {number}")
        return None if verdicts[number] else Drop(FAILED, f"{task_id}, number {number}")


class AnswerNumbers:
    """Numbers of the answers of a file by which `Verdicts` are matched, in the order of its rows."""

    def __init__(self, verdicts: Verdicts) -> None:
        self._by_order = verdicts.by_order
        self._seen: Counter[str] = Counter()

    def next(self, task_id: str, index: int | None) -> int | None:
        """Return the number of the next answer of a task."""
        number = self._seen[task_id]
        self._seen[task_id] += 1
        return number if self._by_order else index


def _passed(tasks: Any) -> dict[str, tuple[bool, ...]]:
    """Return the verdicts by task. A task of several benchmarks has to pass each."""
    passed: dict[str, tuple[bool, ...]] = {}
    for name, verdicts in dict(tasks).items():
        task_id = str(name).rpartition(":")[2]  # a task of a second benchmark has its name in front
        marks = tuple(verdict["passed"] is True for verdict in verdicts)
        before = passed.get(task_id, marks)
        passed[task_id] = tuple(a and b for a, b in zip(before, marks, strict=False))
    return passed


def _require_same_file(path: Path, data: str, scored_sha256: str) -> None:
    if not Path(data).is_file():
        raise DumpError(f"--verdicts {path}: expected --data to be the file of answers that was scored, found {data}")
    found = file_sha256(Path(data))
    if found != scored_sha256:
        raise DumpError(
            f"--verdicts {path}: is of a file with digest {scored_sha256[:12]}, but {data} has {found[:12]}; score "
            "this file with `evalkit score --samples`"
        )
