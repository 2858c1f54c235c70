"""Read and check results of `evalkit score`, for comparisons and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.outputs.files import read_json
from evalkit.tasks.mbpp import PARTS

Verdicts = Sequence[Mapping[str, Any]]
"""Verdicts of a problem's samples, as the result holds them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreFile:
    """Content of a result, without verdicts `infra_error`, which say nothing about the model."""

    path: Path
    checkpoint: str | None
    """Folder or hub id of the checkpoint; None for samples generated elsewhere."""
    source: str
    """The checkpoint, or the path of the samples; "?" if unknown."""
    limit: int | None
    """Number of problems that the run was limited to."""
    scores: Mapping[str, Mapping[str, Any]]
    """Score by benchmark: pass@k by name, `interval`, `problems`, `solved` and others."""
    protocols: Mapping[str, str]
    """Name of the protocol by benchmark, where it is recorded."""
    data: Mapping[str, Mapping[str, str]]
    """`sha256` and `id_prefix` of the data by benchmark, where they are recorded."""
    tasks: Mapping[str, Verdicts]
    """Verdicts of all benchmarks by task id; problems without any verdict are left out."""

    def tasks_of(self, benchmark: str) -> dict[str, Verdicts]:
        """Return a benchmark's verdicts by its own task ids; all verdicts if the id prefix is not recorded.

        Raises:
            EvalError: Several benchmarks have one id prefix, as in results of 0.2.0, and it is unknown which tasks are
                whose.
        """
        prefix = self._prefix(benchmark)
        keys = [key for key in self.tasks if key.startswith(prefix)]
        names = [name for name in self.scores if self._prefix(name) == prefix]
        if len(names) > 1:
            keys = self._told_apart(keys, names, prefix)[benchmark]
        own = prefix.rpartition(":")[2]
        return {own + key[len(prefix) :]: self.tasks[key] for key in keys}

    def _prefix(self, benchmark: str) -> str:
        return self.data.get(benchmark, {}).get("id_prefix", "")

    def _told_apart(self, keys: Sequence[str], names: Sequence[str], prefix: str) -> dict[str, list[str]]:
        """Return the keys of tasks by benchmark, where several have one id prefix: MBPP's parts by their numbers.

        Raises:
            EvalError: There is more than one other benchmark, or a benchmark gets another number of tasks than its
                score says.
        """
        parts = {name: PARTS[name] for name in names if name in PARTS}
        others = [name for name in names if name not in parts]
        found: dict[str, list[str]] = {name: [] for name in names}
        for key in keys:
            number = key.rpartition("/")[2]
            in_parts = (
                name for name, (low, high) in parts.items() if number.isdecimal() and low <= int(number) <= high
            )
            if (name := next(in_parts, others[0] if others else None)) is not None:
                found[name].append(key)
        fits = all(self.scores[name].get("problems", len(own)) == len(own) for name, own in found.items())
        if len(others) > 1 or not fits or sum(map(len, found.values())) != len(keys):
            raise EvalError(
                f"{self.path}: the tasks of {' and '.join(names)} have one id_prefix, {prefix!r}; expected one for "
                "each benchmark; score again, or each benchmark by itself"
            )
        return found

    def protocol_of(self, benchmark: str) -> str:
        """Return the name of the protocol that a benchmark was scored with."""
        return self.protocols.get(benchmark, "not recorded")


def read_score(path: Path) -> ScoreFile:
    """Read a result of `evalkit score`.

    Raises:
        EvalError: The file is missing or is no such result.
    """
    result = read_json(path, what="a result of 'evalkit score'")
    if not isinstance(result, dict) or not all(isinstance(result.get(key), dict) for key in ("scores", "tasks")):
        raise EvalError(f"{path}: holds no scores; expected a result of 'evalkit score --json'")
    if problem := _format_error(result):
        raise EvalError(f"{path}: {problem}; expected a result of 'evalkit score --json'; score again")
    checkpoint = (result.get("checkpoint") or {}).get("source")
    samples = (result.get("samples") or {}).get("path")
    return ScoreFile(
        path=path,
        checkpoint=str(checkpoint) if checkpoint else None,
        source=str(checkpoint or samples or "?"),
        limit=result.get("limit"),
        scores=result["scores"],
        protocols={
            name: str(protocol["name"])
            for name, protocol in (result.get("protocol") or {}).items()
            if isinstance(protocol, dict) and "name" in protocol
        },
        data=result.get("data") or {},
        tasks=_without_infra_errors(result["tasks"]),
    )


def _format_error(result: dict[str, Any]) -> str:
    """Return how a result deviates from the format of `evalkit score`; "" if it does not."""
    for key in ("scores", "tasks", "data", "protocol", "checkpoint", "samples"):
        if not isinstance(result.get(key), dict | None):
            return f"{key} is no object"
    for name, score in result["scores"].items():
        if not isinstance(score, dict) or not isinstance(score.get("interval", {}), dict):
            return f"the score of {name} is no object"
        for metric, interval in score.get("interval", {}).items():
            values = [interval.get(key) for key in ("mean", "low", "high")] if isinstance(interval, dict) else [None]
            if not all(isinstance(value, int | float) for value in values):
                return f"{metric} of {name} is no number with an interval"
    for name, data in (result.get("data") or {}).items():
        if not isinstance(data, dict) or not all(isinstance(data.get(key, ""), str) for key in ("id_prefix", "sha256")):
            return f"the data of {name} is not named by id_prefix and sha256"
    for task, verdicts in result["tasks"].items():
        if not isinstance(verdicts, list) or not all(
            isinstance(verdict, dict) and "passed" in verdict for verdict in verdicts
        ):
            return f"{task} has no list of verdicts"
    return ""


def _without_infra_errors(tasks: Mapping[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Return the tasks without verdicts `infra_error`; tasks without any other verdict are left out."""
    checked = {
        task: [verdict for verdict in verdicts if verdict.get("outcome") != "infra_error"]
        for task, verdicts in tasks.items()
    }
    return {task: verdicts for task, verdicts in checked.items() if verdicts}
