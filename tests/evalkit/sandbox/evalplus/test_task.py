"""Tasks of EvalPlus: cached answers of the reference, and the inputs that take it little time."""

from __future__ import annotations

import marshal
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.sandbox.evalplus.task import load
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict_cache import job_key
from tests.evalkit.sandbox.evalplus.plus_tasks import write_task

IDENTITY = "def f(x): return x"


def test_kept_answers_are_checked_before_they_are_believed(tmp_path: Path):
    task = write_task(tmp_path, IDENTITY, base=[[1]], plus=[["a" * 2000]])
    first = load(str(task.path), "0", task.task_id, str(tmp_path), "m")
    (kept,) = tmp_path.glob("expected-*.bin")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    load.cache_clear()
    again = load(str(task.path), "0", task.task_id, str(tmp_path), "m")
    assert kept.read_bytes()[64:] != whole[:-1]
    for one in (first, again):
        assert one.suites[0].matches(0, marshal.dumps(1, 2))
        assert one.suites[1].matches(0, marshal.dumps("a" * 2000, 2))
        assert not one.suites[1].matches(0, marshal.dumps("a" * 1999 + "b", 2))


@pytest.mark.slow
def test_quick_inputs_are_those_that_take_the_reference_little_time(pool: Pool, tmp_path: Path):
    slow = "from time import process_time as t\ndef f(x):\n    e = t() + 0.2 * (x == 1)\n    while t() < e: pass\n"
    task = write_task(tmp_path, f"{slow}    return x / 2", base=[[0], [1], [2]], plus=[[1]])
    base, plus = (suite.quick() for suite in load(str(task.path), "0", task.task_id, None, "").suites)
    assert [base.args(place) for place in range(len(base))] == [[0], [2]]
    assert [base.expected(place) for place in range(len(base))] == [0.0, 1.0]
    assert base.tolerance(0) == 1e-6
    assert len(plus) == 0
    job = task.job("def f(x): return x / 2 if x != 1 else None")
    assert job.inputs is not None
    assert pool.check_alone(replace(job, inputs=job.inputs | {"quick": True})).passed
    assert not pool.check_alone(job).passed
    assert job_key(job) != job_key(replace(job, inputs=job.inputs | {"quick": True}))
