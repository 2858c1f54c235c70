"""CPU time of each problem on this machine: four times what its reference takes, at least 3 s.

EvalPlus' benchmarks have a limit for each call instead (`sandbox/plus_task.py`). The references run first, through
the same executor. A reference that fails means that the machine or the executor is not fit to judge this problem: the
result names it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import CPU_S, EVALPLUS_CPU_S, Verdict
from evalkit.sandbox.verdict_cache import VerdictCache
from evalkit.scoring.grader import Grader
from evalkit.tasks.base import Problem

FACTOR = 4.0
"""How many times the reference's CPU time a program may use."""

REFERENCE_CPU_S = 120.0
"""Longest CPU time of a reference, in seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Limits by task id, and what came of the references."""

    cpu_s: dict[str, float]
    """CPU seconds that a program may use, in whole seconds so that small jitter changes nothing."""
    failed: dict[str, Verdict]
    """References that did not pass."""
    num_run: int
    """References that ran now; the others' verdicts were in the cache."""


def calibrate(problems: Sequence[Problem], pool: Pool, cache: VerdictCache) -> Calibration:
    """Run the references of `problems` and derive their limits."""
    grader = Grader(pool, cache)
    for problem in problems:
        grader.add(problem.reference_job(cpu_s=REFERENCE_CPU_S))
    verdicts = grader.finish()
    pairs = list(zip(problems, verdicts, strict=True))
    return Calibration(
        cpu_s={
            problem.task_id: max(CPU_S, math.ceil(FACTOR * verdict.cpu_s)) if problem.inputs is None else EVALPLUS_CPU_S
            for problem, verdict in pairs
        },
        failed={problem.task_id: verdict for problem, verdict in pairs if not verdict.passed},
        num_run=grader.num_distinct,
    )
