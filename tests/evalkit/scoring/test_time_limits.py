"""Tests of the time limits that references determine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict_cache import VerdictCache
from evalkit.scoring import time_limits
from evalkit.tasks.base import Benchmark

BURN = "import time\nwhile time.process_time() < 1.1: pass\n"


@pytest.mark.slow
def test_a_slow_reference_gets_a_longer_limit(pool: Pool, humaneval: Benchmark):
    """The reference of Mbpp/123 takes seconds: a flat limit of 3 s would fail it on many machines."""
    problem = humaneval.problems[0]
    slow = replace(problem, reference=problem.reference + BURN)
    limit = time_limits.calibrate([slow], pool, VerdictCache(None)).cpu_s[problem.task_id]
    assert 3.0 < limit < 20.0
    assert limit == int(limit)


def test_a_reference_that_fails_is_named(pool: Pool, humaneval: Benchmark):
    broken = replace(humaneval.problems[0], reference="x = 1")
    limits = time_limits.calibrate([broken, humaneval.problems[1]], pool, VerdictCache(None))
    assert list(limits.failed) == ["HumanEval/0"]
    assert limits.cpu_s["HumanEval/1"] == 3.0
