"""Verdicts of the benchmark's own tests for given samples, with time limits and the cache of verdicts."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from contextlib import closing

from evalkit.cache_dirs import cache_dir
from evalkit.request import ScoreCallbacks
from evalkit.samples.base import Sample
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import Verdict
from evalkit.sandbox.verdict_cache import VerdictCache
from evalkit.scoring.execution import SampleExecutor
from evalkit.scoring.time_limits import calibrate
from evalkit.tasks.base import Problem


def verdicts_of(
    problems: Sequence[Problem],
    samples: Sequence[Sample],
    *,
    pool: Pool,
    use_cache: bool,
    callbacks: ScoreCallbacks,
    hopeless: Mapping[str, Container[int]] | None = None,
) -> dict[str, tuple[Verdict, ...]]:
    """Return the verdict of each sample, by task id, in the order of the samples.

    Args:
        problems: The problems of the samples.
        samples: All samples, in any order of problems.
        pool: A running pool.
        use_cache: Read and write cached verdicts.
        callbacks: Receives a line about references that fail, and about the programs that are executed.
        hopeless: Indices of samples that hung in several other calls, by task id (`SampleExecutor.add`).
    """
    with closing(VerdictCache(cache_dir() if use_cache else None)) as cache:
        limits = calibrate(problems, pool, cache)
        for task_id, verdict in limits.failed.items():
            callbacks.note(f"warning: the reference of {task_id} does not pass on this machine ({verdict.outcome})")
        executor = SampleExecutor(problems, limits.cpu_s, pool, cache)
        for sample in samples:
            executor.add(sample, is_hopeless=sample.index in (hopeless or {}).get(sample.task_id, ()))
        if executor.num_distinct:
            callbacks.note(f"executing {executor.num_distinct} programs against the benchmark's own tests")
        verdicts: dict[str, list[Verdict]] = {problem.task_id: [] for problem in problems}
        for execution in executor.finish():
            verdicts[execution.sample.task_id].append(execution.verdict)
    return {task_id: tuple(items) for task_id, items in verdicts.items()}
