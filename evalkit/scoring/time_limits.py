"""CPU time limit of each problem: four times what its reference takes on this machine, at least 3 s.

EvalPlus benchmarks have a limit for each call instead (`evalkit/sandbox/evalplus/task.py`). The references run first,
in the same sandbox as the samples. A reference that fails shows that scores of its problem are not valid on this
machine; the result names it.
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
"""Ratio of a program's CPU time limit to the reference's CPU time."""

REFERENCE_CPU_S = 120.0
"""CPU time limit of a reference, in seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeLimits:
    """Limits by task id, and the references that failed."""

    cpu_s: dict[str, float]
    """CPU seconds that a program may use; whole seconds, so that small jitter changes nothing."""
    failed: dict[str, Verdict]
    """Verdicts of the references that did not pass."""


def calibrate(problems: Sequence[Problem], pool: Pool, cache: VerdictCache) -> TimeLimits:
    """Run the references of `problems` and derive the time limits."""
    grader = Grader(pool, cache)
    for problem in problems:
        grader.add(problem.reference_job(cpu_s=REFERENCE_CPU_S))
    pairs = list(zip(problems, grader.finish(), strict=True))
    return TimeLimits(
        cpu_s={
            problem.task_id: max(CPU_S, math.ceil(FACTOR * verdict.cpu_s)) if problem.inputs is None else EVALPLUS_CPU_S
            for problem, verdict in pairs
        },
        failed={problem.task_id: verdict for problem, verdict in pairs if not verdict.passed},
    )
