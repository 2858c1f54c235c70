"""The execute stage: run each sample's program in the sandbox against its problem's checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evalkit.samples.base import Execution, Sample
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import CPU_S
from evalkit.sandbox.verdict_cache import VerdictCache
from evalkit.scoring.grader import Grader
from evalkit.tasks.base import Problem

BRIEF_CPU_S = 1.0
"""CPU seconds for a program that hung in several calls of the model-written tests."""


class SampleExecutor:
    """Executes samples as they are added; `finish` waits for the verdicts.

    Samples may be added while a model still generates: execution runs concurrently.
    """

    def __init__(
        self, problems: Sequence[Problem], cpu_s: Mapping[str, float], pool: Pool, cache: VerdictCache
    ) -> None:
        """Execute samples of `problems`, within the CPU limits `cpu_s` (seconds, by task id)."""
        self._problems = {problem.task_id: problem for problem in problems}
        self._cpu_s = cpu_s
        self._grader = Grader(pool, cache)
        self._samples: list[Sample] = []

    @property
    def num_distinct(self) -> int:
        """Number of distinct programs that are not in the cache and have to be executed."""
        return self._grader.num_distinct

    @property
    def num_cached(self) -> int:
        """Number of samples whose verdict was in the cache."""
        return self._grader.num_reused

    def add(self, sample: Sample, *, is_hopeless: bool = False) -> None:
        """Start the execution of one sample, unless an equal program is known or running.

        Args:
            sample: The sample.
            is_hopeless: It hung in several other calls: it gets `BRIEF_CPU_S`, unless its verdict is known.
        """
        problem = self._problems[sample.task_id]
        self._samples.append(sample)
        job = problem.job(sample.program(problem), cpu_s=self._cpu_s[sample.task_id])
        if is_hopeless and job.cpu_s == CPU_S and not self._grader.knows(job):
            job = replace(job, cpu_s=BRIEF_CPU_S)
        self._grader.add(job)

    def finish(self) -> tuple[Execution, ...]:
        """Wait for all programs; return the executions in the order in which samples were added."""
        verdicts = self._grader.finish()
        return tuple(
            Execution(sample=sample, verdict=verdict) for sample, verdict in zip(self._samples, verdicts, strict=True)
        )
