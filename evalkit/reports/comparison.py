"""Compare two scores on the same problems, paired.

The value of a problem is the share of its samples that pass. A difference is the mean over the problems that both
scores hold, with the paired bootstrap interval over problems. An interval that holds 0 shows no difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.outputs.files import read_json
from evalkit.scoring import stats


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two scores on one benchmark."""

    benchmark: str
    first: str
    second: str
    """The checkpoints or sample files that were scored."""
    num_problems: int
    """Number of problems that both hold."""
    first_share: float
    second_share: float
    """pass@1 on those problems, as fractions."""
    difference: stats.Estimate
    """first - second."""
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    """Task ids that one solves with any sample and the other does not."""
    remarks: tuple[str, ...]
    """Reasons for caution, such as different protocols."""

    @property
    def conclusion(self) -> str:
        """The conclusion that the interval supports, in words."""
        if self.difference.low > 0:
            return "the first is better"
        if self.difference.high < 0:
            return "the second is better"
        return "no difference shown"


def read_result(path: Path) -> dict[str, Any]:
    """Read a result of `evalkit score`, without verdicts `infra_error`, which say nothing about the model.

    Returns:
        The JSON result, with `path` added.

    Raises:
        EvalError: The file is missing or is no such result.
    """
    result = read_json(path, what="a result of 'evalkit score'")
    if not isinstance(result, dict) or not all(isinstance(result.get(key), dict) for key in ("scores", "tasks")):
        raise EvalError(f"{path}: holds no scores; expected a result of 'evalkit score --json'")
    if problem := _format_error(result):
        raise EvalError(f"{path}: {problem}; expected a result of 'evalkit score --json'; score again")
    return result | {"path": str(path), "tasks": _without_infra_errors(result["tasks"])}


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


def _without_infra_errors(tasks: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Return the tasks without verdicts `infra_error`; tasks without any other verdict are left out."""
    checked = {
        task: [verdict for verdict in verdicts if verdict.get("outcome") != "infra_error"]
        for task, verdicts in tasks.items()
    }
    return {task: verdicts for task, verdicts in checked.items() if verdicts}


def source_of(result: dict[str, Any]) -> str:
    """Return the source of the checkpoint, or the path of the samples; "?" if unknown."""
    return str((result.get("checkpoint") or {}).get("source") or (result.get("samples") or {}).get("path") or "?")


def tasks_of(result: dict[str, Any], benchmark: str) -> dict[str, list[dict[str, Any]]]:
    """Return a benchmark's verdicts by its own task ids; all verdicts where the result does not record the prefix."""
    prefix = (result.get("data") or {}).get(benchmark, {}).get("id_prefix", "")
    own = prefix.rpartition(":")[2]
    return {own + key[len(prefix) :]: value for key, value in result["tasks"].items() if key.startswith(prefix)}


def compare(paths: list[Path]) -> list[Comparison]:
    """Compare the first result with each other one, on every benchmark that both hold.

    Raises:
        EvalError: There are fewer than two results, or two share no problem.
    """
    if len(paths) < 2:
        raise EvalError("expected at least two results of 'evalkit score'; name another")
    results = [read_result(path) for path in paths]
    comparisons = [
        _compare(results[0], other, benchmark)
        for other in results[1:]
        for benchmark in results[0]["scores"]
        if benchmark in other["scores"]
    ]
    if not comparisons:
        raise EvalError(f"{paths[0]} and {paths[1]} hold no common benchmark; score both with the same --tasks")
    return comparisons


def _compare(first: dict[str, Any], second: dict[str, Any], benchmark: str) -> Comparison:
    for result in (first, second):
        if not {"id_prefix", "sha256"} <= (result.get("data") or {}).get(benchmark, {}).keys():
            raise EvalError(f"{result['path']}: does not record the data of {benchmark}; score again")
    first_tasks, second_tasks = tasks_of(first, benchmark), tasks_of(second, benchmark)
    shared = [task for task in first_tasks if task in second_tasks]
    if not shared:
        raise EvalError(f"{first['path']} and {second['path']} share no problem of {benchmark}: nothing to pair")
    shares = [[_share(tasks[task]) for task in shared] for tasks in (first_tasks, second_tasks)]
    remarks = []
    for what, ours, theirs in (
        ("protocols", protocol_name(first, benchmark), protocol_name(second, benchmark)),
        ("data", first["data"][benchmark]["sha256"][:12], second["data"][benchmark]["sha256"][:12]),
    ):
        if ours != theirs:
            remarks.append(f"their {what} differ: {ours} and {theirs}")
    if len(shared) < max(len(first_tasks), len(second_tasks)):
        remarks.append(f"only {len(shared)} problems are in both")
    return Comparison(
        benchmark=benchmark,
        first=source_of(first),
        second=source_of(second),
        num_problems=len(shared),
        first_share=sum(shares[0]) / len(shared),
        second_share=sum(shares[1]) / len(shared),
        difference=stats.difference(shares[0], shares[1]),
        only_first=tuple(task for task, ours, theirs in zip(shared, *shares, strict=True) if ours > 0 == theirs),
        only_second=tuple(task for task, ours, theirs in zip(shared, *shares, strict=True) if theirs > 0 == ours),
        remarks=tuple(remarks),
    )


def protocol_name(result: dict[str, Any], benchmark: str) -> str:
    """Return the name of the protocol that a benchmark was scored with."""
    return str(((result.get("protocol") or {}).get(benchmark) or {}).get("name", "not recorded"))


def _share(verdicts: list[dict[str, Any]]) -> float:
    return sum(bool(verdict["passed"]) for verdict in verdicts) / len(verdicts)
