"""Choose a protocol of the table (`evalkit/tasks/presets.py`), adjust it, and apply its range of problems."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from evalkit.errors import EvalError
from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.presets import PROTOCOLS, PromptProtocol

_COMMANDS = {"solutions": "score", "tests": "write-tests", "inputs": "write-tests --kind inputs"}
"""Command for each kind of protocol."""


def find(name: str | None, *, task: str, kind: str = "solutions") -> PromptProtocol:
    """Return a protocol.

    Args:
        name: Name of the protocol; None for the default of `task`.
        task: Name of the benchmark.
        kind: What is written: `solutions`, `tests`, or `inputs` (functions that return inputs).

    Raises:
        EvalError: There is no such protocol, it does not cover `task`, or it is for another kind.
    """
    suitable = [protocol for protocol in PROTOCOLS if protocol.kind == kind]
    if name is None:
        for protocol in suitable:
            if task in protocol.tasks:
                return protocol
        raise EvalError(f"no protocol writes {kind} for {task}; expected one of {', '.join(tasks_with_tests())}")
    for protocol in PROTOCOLS:
        if protocol.name == name:
            if protocol not in suitable:
                command = _COMMANDS[protocol.kind]
                raise EvalError(
                    f"protocol {name} writes {protocol.kind}; it is for 'evalkit {command}', choose another"
                )
            if task not in protocol.tasks:
                raise EvalError(f"protocol {name} is for {', '.join(protocol.tasks)}, not {task}; choose another")
            return protocol
    known = ", ".join(protocol.name for protocol in suitable)
    raise EvalError(f"protocol {name!r} is unknown; expected one of {known}")


def find_for_choosing(*, task: str, kind: str, chat: bool) -> PromptProtocol:
    """Return the default protocol of samples to choose among, or of the tests to choose by.

    It shows no tests of the problem, if there is such a protocol: a choice that rests on shown tests says little.

    Args:
        task: Name of the benchmark.
        kind: What is written; see `find`.
        chat: The checkpoint has a chat template: prefer a protocol for chat models.

    Raises:
        EvalError: No protocol writes this kind for `task`.
    """
    suitable = [item for item in PROTOCOLS if item.kind == kind and task in item.tasks]
    hidden = [item for item in suitable if not item.visible_tests]
    candidates = hidden or suitable or [find(None, task=task, kind=kind)]
    return min(candidates, key=lambda item: item.is_chat != chat)


def find_for_refining(*, task: str, chat: bool) -> PromptProtocol:
    """Return the default protocol of answers that are refined: one that shows tests, with one answer per problem.

    Args:
        task: Name of the benchmark.
        chat: The checkpoint has a chat template: prefer a protocol for chat models.

    Raises:
        EvalError: No protocol covers `task`.
    """
    suitable = [item for item in PROTOCOLS if item.kind == "solutions" and task in item.tasks and item.visible_tests]
    single = [item for item in suitable if item.num_samples == 1]
    return min(single or [find(None, task=task)], key=lambda item: item.is_chat != chat)


def tasks_with_tests() -> tuple[str, ...]:
    """Return the benchmarks for which a protocol writes tests."""
    tests = (protocol for protocol in PROTOCOLS if protocol.answer == "tests")
    return tuple(dict.fromkeys(task for protocol in tests for task in protocol.tasks))


def adjust(protocol: PromptProtocol, **settings: Any) -> PromptProtocol:
    """Return the protocol with those settings that are not None; a changed protocol gets `+changed` in its name.

    Raises:
        EvalError: A setting is out of range.
    """
    changed = {key: value for key, value in settings.items() if value is not None and value != getattr(protocol, key)}
    if not changed:
        return protocol
    adjusted = replace(protocol, name=f"{protocol.name}+changed", **changed)
    if adjusted.max_new_tokens < 1 or adjusted.num_samples < 1:
        raise EvalError("--max-new-tokens and --n must be at least 1")
    if adjusted.temperature < 0 or not 0 < adjusted.top_p <= 1:
        raise EvalError("--temperature must be at least 0 and --top-p in (0, 1]")
    if adjusted.num_samples > 1 and adjusted.temperature == 0:
        raise EvalError(f"--n {adjusted.num_samples} with temperature 0 gives equal samples; add --temperature 0.8")
    return adjusted


def covered_problems(protocol: PromptProtocol, benchmark: Benchmark) -> list[Problem]:
    """Return the problems of the benchmark that the protocol covers."""
    low, high = protocol.first_id, protocol.last_id
    if benchmark.is_part or low is None or high is None:
        return list(benchmark.problems)
    return [problem for problem in benchmark.problems if low <= task_number(problem) <= high]


def task_number(problem: Problem) -> int:
    """Return the number at the end of a task id: 11 for `Mbpp/11`."""
    return int(problem.task_id.rpartition("/")[2])
