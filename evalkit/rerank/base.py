"""Interface of the select stage, and the selector that keeps all samples.

A selector orders the samples of one problem; the score stage then sees only the samples it returns, in its order. A
selector never sees verdicts or the benchmark's tests: `Candidates` does not hold them.

To add a selector: implement `Selector` in a module of this folder and pass an instance to `evalkit.evaluate.evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from evalkit.samples.base import Execution, Sample
from evalkit.tasks.base import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """What a selector knows of one problem."""

    task_id: str
    prompt: str
    """The problem's prompt; "" for benchmarks whose prompts are built from a description."""
    samples: tuple[Sample, ...]
    """All samples of the problem, by index."""


class Selector(Protocol):
    """A select stage."""

    def select(self, candidates: Candidates) -> Sequence[int]:
        """Return positions in `candidates.samples`, the most promising sample first; may leave samples out."""


class AllSamples:
    """Keeps all samples in their order."""

    def select(self, candidates: Candidates) -> Sequence[int]:
        """Return all positions."""
        return range(len(candidates.samples))


@dataclass(frozen=True, kw_only=True, slots=True)
class ProblemResult:
    """One problem with its selected samples and their verdicts."""

    problem: Problem
    executions: tuple[Execution, ...]
    """Selected samples in the selector's order; at least one."""

    @property
    def num_passed(self) -> int:
        """Number of selected samples that passed."""
        return sum(execution.verdict.passed for execution in self.executions)


def executions_by_task(
    problems: Sequence[Problem], executions: Sequence[Execution]
) -> dict[str, tuple[Execution, ...]]:
    """Return the executions of each problem by sample index, by task id in the order of `problems`."""
    by_task: dict[str, list[Execution]] = {problem.task_id: [] for problem in problems}
    for execution in sorted(executions, key=lambda execution: execution.sample.index):
        by_task[execution.sample.task_id].append(execution)
    return {task_id: tuple(items) for task_id, items in by_task.items()}


def select(
    selector: Selector, problems: Sequence[Problem], executions: Sequence[Execution]
) -> tuple[ProblemResult, ...]:
    """Apply a selector to the samples of each problem.

    Args:
        selector: The select stage.
        problems: The planned problems; the result has their order.
        executions: All executed samples of these problems, in any order.

    Returns:
        One result per problem; problems for which no sample is selected are left out.
    """
    by_task = executions_by_task(problems, executions)
    results = []
    for problem in problems:
        executed = by_task[problem.task_id]
        samples = tuple(execution.sample for execution in executed)
        candidates = Candidates(task_id=problem.task_id, prompt=problem.prompt, samples=samples)
        selected = tuple(executed[position] for position in selector.select(candidates)) if executed else ()
        if selected:
            results.append(ProblemResult(problem=problem, executions=selected))
    return tuple(results)
