"""Verdicts of the pass/fail check: reference solutions, each kind of outcome, prefetched calls."""

from __future__ import annotations

import pytest

from evalkit.sandbox.pool import Pool
from evalkit.tasks.base import Benchmark
from tests.evalkit.sandbox.jobs import job


def test_all_humaneval_references_pass(pool: Pool, humaneval: Benchmark):
    verdicts = dict(pool.check_all([problem.job(problem.reference) for problem in humaneval.problems]))
    assert len(verdicts) == 164
    assert {index: verdict for index, verdict in verdicts.items() if not verdict.passed} == {}


@pytest.mark.slow
def test_no_humaneval_problem_passes_without_a_body(pool: Pool, humaneval: Benchmark):
    verdicts = dict(pool.check_all([problem.job(problem.prompt + "    pass\n") for problem in humaneval.problems]))
    assert [index for index, verdict in verdicts.items() if verdict.passed] == []


@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        ("def f(x): return x + 1", "pass"),
        ("def f(x): return x", "wrong"),
        ("def f(x): return", "wrong"),
        ("def f(x): raise KeyError(x)", "exception"),
        ("def g(x): return x", "exception"),
        ("def f(x) return x", "exception"),
        ("def f(x): return object()", "exception"),
        ("def f(x): return f(x)", "exception"),
        ("def f(x): return [0] * 10 ** 10", "oom"),
        ("import sys\nsys.exit(0)", "exited"),
        ("import os\ndef f(x): os._exit(0)", "exited"),
        ("import ctypes\ndef f(x): ctypes.string_at(0)", "killed"),
        ("def f(x): return open('/etc/hostname').read()", "sandbox_denied"),
        ("import os\ndef f(x): return os.fork()", "sandbox_denied"),
        ("def f(x):\n    try: open('/etc/hostname')\n    except OSError: raise", "sandbox_denied"),
        ("def f(x): raise PermissionError('you may not')", "exception"),
        ("def f(x): raise BlockingIOError(11, 'busy')", "exception"),
        ("def f(x): raise MemoryError", "exception"),
        ("class PermissionError(Exception): pass\ndef f(x): raise PermissionError", "exception"),
        ("def f(x):\n    try: bytearray(1 << 40)\n    except MemoryError as error: raise error", "oom"),
        ("def f(x):\n    while True: pass", "timeout_cpu"),
        ("import numpy as np\ndef f(x): return np.array([x]).sum() + 1", "pass"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\ndef f(x): return A(x).x + 1", "pass"),
        ("import threading\ndef f(x):\n t = threading.Thread(target=print)\n t.start()\n t.join()\n return 2", "pass"),
        ("import asyncio\nasync def g(): return 2\ndef f(x): return asyncio.run(g())", "pass"),
    ],
)
def test_each_kind_of_program_gets_its_outcome(pool: Pool, program: str, outcome: str):
    verdict = pool.check_alone(job(program, cpu_s=1.0))
    assert verdict.outcome == outcome, verdict
    assert verdict.passed == (outcome == "pass")


def test_a_wrong_verdict_names_the_check_and_the_value(pool: Pool):
    verdict = pool.check_alone(job("def f(x): return x", "assert f(1) == 1\nassert f(7) == 8"))
    assert verdict.detail == "assert f(7) == 8  # f(7) gave 7"


def test_tests_may_expect_an_exception_of_the_program(pool: Pool):
    test = "try:\n    f(1)\n    assert False\nexcept ValueError:\n    pass"
    assert pool.check_alone(job("def f(x): raise ValueError('no')", test)).passed
    assert not pool.check_alone(job("def f(x): raise KeyError('no')", test)).passed


@pytest.mark.slow
def test_a_test_that_catches_everything_cannot_turn_a_crash_into_a_pass(pool: Pool):
    test = "try:\n    f(1)\nexcept BaseException:\n    pass"
    assert pool.check_alone(job("import os\ndef f(x): os._exit(0)", test)).outcome == "exited"
    assert pool.check_alone(job("def f(x):\n    while True: pass", test, cpu_s=1.0)).outcome == "timeout_cpu"


@pytest.mark.parametrize(
    "test",
    [
        "exec('first = f(1)')\nassert f(2) == 2",  # makes a call that its source does not show
        "exec('try: f(1)\\nexcept BaseException: pass')\nassert f(2) == 2",  # and catches all that comes of it
        "def check(g):\n    eval('g(1)')\n    assert g(2) == 2\ncheck(f)",
    ],
)
def test_a_test_that_makes_other_calls_than_were_prefetched_runs_again_without_prefetching(pool: Pool, test: str):
    counts = "made = []\ndef f(x):\n    made.append(x)\n    return len(made)"
    assert pool.submit(job(counts, test)).result().outcome == "pass"
    assert pool.submit(job(counts, f"{test}\nassert f(3) == 4")).result().outcome == "wrong"


def test_prefetched_calls_are_made_once_and_in_order(pool: Pool):
    counts = "made = []\ndef f(*x, **y):\n    made.append((x, y))\n    return list(made)"
    test = "assert f(1) == [((1,), {})]\nassert f(2, k=[3]) == [((1,), {}), ((2,), {'k': [3]})]\n"
    test += "for i in range(2):\n    last = f(i)\nassert len(last) == 4"
    assert pool.submit(job(counts, test)).result().outcome == "pass"


def test_answers_larger_than_a_socket_holds_do_not_stop_prefetched_calls(pool: Pool):
    lines = [f"assert f({i}, {'x' * 2000!r}) == 'y' * 300000" for i in range(20)]
    assert pool.submit(job("def f(i, x): return 'y' * 300000", "\n".join(lines))).result().outcome == "pass"


def test_a_failed_check_counts_before_what_a_later_call_does(pool: Pool):
    program = "import os\ndef f(x):\n    if x:\n        os._exit(0)\n    return 0"
    verdict = pool.submit(job(program, "assert f(0) == 1\nassert f(1) == 1")).result()
    assert verdict.outcome == "wrong", verdict


@pytest.mark.slow
def test_sleeping_is_a_timeout_by_the_clock_and_not_by_cpu(pool: Pool):
    verdict = pool.check_alone(job("import time\ndef f(x): time.sleep(60)", cpu_s=0.1))
    assert verdict.outcome == "timeout_wall"
    assert verdict.cpu_s < 0.1


@pytest.mark.slow
def test_a_check_that_hangs_does_not_hang_the_checker(pool: Pool):
    verdict = pool.check_alone(job("def f(x): return x", "f(1)\nwhile True: pass", cpu_s=0.1))
    assert verdict.outcome == "timeout_wall"
    assert pool.check_alone(job("def f(x): return x + 1")).passed
