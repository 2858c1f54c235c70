"""Comparison of two runs: the same problems, paired, and whether the difference is one.

A run's value on a problem is the share of its samples that pass. Differences are means over the problems that both
runs answered, with the paired bootstrap over problems; one whose interval holds 0 is not called a difference.
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
    """Two runs on one benchmark."""

    benchmark: str
    first: str
    second: str
    """What was scored: the checkpoint or file of samples."""
    num_problems: int
    """Problems that both answered."""
    first_share: float
    second_share: float
    """pass@1 on those problems, as fractions."""
    difference: stats.Estimate
    """first - second."""
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    """Tasks that one solves (with any sample) and the other does not."""
    remarks: tuple[str, ...]

    @property
    def conclusion(self) -> str:
        """Say in words what the interval allows to say."""
        if self.difference.low > 0:
            return "the first is better"
        if self.difference.high < 0:
            return "the second is better"
        return "no difference shown"


def read_result(path: Path) -> dict[str, Any]:
    """Read a result of `evalkit score`, without the verdicts that say nothing of the model (`infra_error`).

    Raises:
        EvalError: it is missing or something else.
    """
    result = read_json(path, what="a result of 'evalkit score'")
    if not isinstance(result, dict) or not all(isinstance(result.get(key), dict) for key in ("scores", "tasks")):
        raise EvalError(f"{path}: holds no scores; expected a result of 'evalkit score --json'")
    if broken := _broken(result):
        raise EvalError(f"{path}: {broken}; expected a result of 'evalkit score --json'; score again")
    return result | {"path": str(path), "tasks": _without_infra_errors(result["tasks"])}


def _broken(result: dict[str, Any]) -> str:
    """Say what of a result has not the form that `evalkit score` writes; empty when all has."""
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
        if not isinstance(verdicts, list) or not all(isinstance(one, dict) and "passed" in one for one in verdicts):
            return f"{task} has no list of verdicts"
    return ""


def _without_infra_errors(tasks: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Return the verdicts that are answers of the model; problems without any are left out."""
    judged = {
        task: [verdict for verdict in verdicts if verdict.get("outcome") != "infra_error"]
        for task, verdicts in tasks.items()
    }
    return {task: verdicts for task, verdicts in judged.items() if verdicts}


def what_was_scored(result: dict[str, Any]) -> str:
    """Return the checkpoint's source, or the path of the samples."""
    return str((result.get("checkpoint") or {}).get("source") or (result.get("samples") or {}).get("path") or "?")


def tasks_of(result: dict[str, Any], benchmark: str) -> dict[str, list[dict[str, Any]]]:
    """Return a benchmark's verdicts by its own task ids."""
    start = result["data"][benchmark]["id_prefix"]
    own = start.rpartition(":")[2]
    return {own + key[len(start) :]: value for key, value in result["tasks"].items() if key.startswith(start)}


def compare(paths: list[Path]) -> list[Comparison]:
    """Compare the first result with each other one, on every benchmark that both hold.

    Raises:
        EvalError: fewer than two results, or two that share no problem.
    """
    if len(paths) < 2:
        raise EvalError("expected at least two results of 'evalkit score'; name another")
    results = [read_result(path) for path in paths]
    found = [
        _compare(results[0], other, benchmark)
        for other in results[1:]
        for benchmark in results[0]["scores"]
        if benchmark in other["scores"]
    ]
    if not found:
        raise EvalError(f"{paths[0]} and {paths[1]} hold no common benchmark; score both with the same --tasks")
    return found


def _compare(first: dict[str, Any], second: dict[str, Any], benchmark: str) -> Comparison:
    for result in (first, second):
        if not {"id_prefix", "sha256"} <= (result.get("data") or {}).get(benchmark, {}).keys():
            raise EvalError(f"{result['path']}: does not say on which data {benchmark} was scored; score again")
    ours, theirs = tasks_of(first, benchmark), tasks_of(second, benchmark)
    both = [task for task in ours if task in theirs]
    if not both:
        raise EvalError(f"{first['path']} and {second['path']} share no problem of {benchmark}: nothing to pair")
    shares = [[_share(tasks[task]) for task in both] for tasks in (ours, theirs)]
    remarks = []
    for what, one, other in (
        ("protocols", _protocol(first, benchmark), _protocol(second, benchmark)),
        ("data", first["data"][benchmark]["sha256"][:12], second["data"][benchmark]["sha256"][:12]),
    ):
        if one != other:
            remarks.append(f"their {what} differ: {one} and {other}")
    if len(both) < max(len(ours), len(theirs)):
        remarks.append(f"only {len(both)} problems are in both")
    return Comparison(
        benchmark=benchmark,
        first=what_was_scored(first),
        second=what_was_scored(second),
        num_problems=len(both),
        first_share=sum(shares[0]) / len(both),
        second_share=sum(shares[1]) / len(both),
        difference=stats.difference(shares[0], shares[1]),
        only_first=tuple(task for task, one, two in zip(both, *shares, strict=True) if one > 0 and two == 0),
        only_second=tuple(task for task, one, two in zip(both, *shares, strict=True) if two > 0 and one == 0),
        remarks=tuple(remarks),
    )


def _protocol(result: dict[str, Any], benchmark: str) -> str:
    return str(((result.get("protocol") or {}).get(benchmark) or {}).get("name", "not recorded"))


def _share(verdicts: list[dict[str, Any]]) -> float:
    return sum(bool(verdict["passed"]) for verdict in verdicts) / len(verdicts)
