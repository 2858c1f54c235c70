"""Is the verdict the right one? Reference solutions, each kind of outcome, retries, replaced judges."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.sandbox import pool as pool_module
from evalkit.sandbox.checker_client import CheckerProcess
from evalkit.sandbox.guest.isolation import Layer
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import RETRIED, CheckJob, Verdict
from evalkit.sandbox.verdict_cache import VerdictCache, job_key
from evalkit.scoring.grader import Grader
from evalkit.tasks.base import Benchmark
from tests.evalkit.processes import alive, descendants

ROOT = Path(__file__).resolve().parents[4]


def job(program: str, test: str = "assert f(1) == 2", **settings) -> CheckJob:
    return CheckJob(program=program, entry_points=("f",), prelude="", test=test, **settings)


def test_all_humaneval_references_pass(pool: Pool, humaneval: Benchmark):
    verdicts = dict(pool.check_all([problem.job(problem.reference) for problem in humaneval.problems]))
    assert len(verdicts) == 164
    assert {index: verdict for index, verdict in verdicts.items() if not verdict.passed} == {}


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
def test_a_test_that_makes_other_calls_than_were_foreseen_is_run_again_without_foresight(pool: Pool, test: str):
    counts = "made = []\ndef f(x):\n    made.append(x)\n    return len(made)"
    assert pool.submit(job(counts, test)).result().outcome == "pass"
    assert pool.submit(job(counts, f"{test}\nassert f(3) == 4")).result().outcome == "wrong"


def test_what_was_sent_ahead_is_called_once_and_in_order(pool: Pool):
    counts = "made = []\ndef f(*x, **y):\n    made.append((x, y))\n    return list(made)"
    test = "assert f(1) == [((1,), {})]\nassert f(2, k=[3]) == [((1,), {}), ((2,), {'k': [3]})]\n"
    test += "for i in range(2):\n    last = f(i)\nassert len(last) == 4"
    assert pool.submit(job(counts, test)).result().outcome == "pass"


def test_answers_larger_than_a_socket_holds_do_not_stop_what_was_sent_ahead(pool: Pool):
    lines = [f"assert f({i}, {'x' * 2000!r}) == 'y' * 300000" for i in range(20)]
    assert pool.submit(job("def f(i, x): return 'y' * 300000", "\n".join(lines))).result().outcome == "pass"


def test_a_failed_check_counts_before_what_a_later_call_does(pool: Pool):
    program = "import os\ndef f(x):\n    if x:\n        os._exit(0)\n    return 0"
    verdict = pool.submit(job(program, "assert f(0) == 1\nassert f(1) == 1")).result()
    assert verdict.outcome == "wrong", verdict


def test_sleeping_is_a_timeout_by_the_clock_and_not_by_cpu(pool: Pool):
    verdict = pool.check_alone(job("import time\ndef f(x): time.sleep(60)", cpu_s=0.1))
    assert verdict.outcome == "timeout_wall"
    assert verdict.cpu_s < 0.1


def test_a_check_that_hangs_does_not_hang_the_judge(pool: Pool):
    verdict = pool.check_alone(job("def f(x): return x", "f(1)\nwhile True: pass", cpu_s=0.1))
    assert verdict.outcome == "timeout_wall"
    assert pool.check_alone(job("def f(x): return x + 1")).passed


def test_a_judge_that_does_not_answer_is_replaced(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool_module, "_GRACE_S", -3.5)  # the judge is given up before its own deadline
    with Pool(workers=1) as checkers:
        assert checkers.check_alone(job("import time\ntime.sleep(60)", cpu_s=0.2)).outcome == "timeout_wall"
        monkeypatch.setattr(pool_module, "_GRACE_S", 10.0)
        assert checkers.check_alone(job("def f(x): return x + 1")).passed


class _Flaky:
    """A pool whose first answer for each job is doubtful, as on a machine under load."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def submit(self, job: CheckJob):
        from concurrent.futures import Future

        self.calls.append("beside others")
        future: Future[Verdict] = Future()
        future.set_result(Verdict(outcome="timeout_wall"))
        return future

    def check_alone(self, job: CheckJob, *, after: Verdict) -> Verdict:
        assert after.outcome in RETRIED
        self.calls.append("alone")
        return Verdict(outcome="pass")


def test_what_timed_out_by_the_clock_is_run_again_alone_before_it_counts():
    flaky = _Flaky()
    grader = Grader(flaky, VerdictCache(None))  # type: ignore[arg-type]
    grader.add(job("a"))
    grader.add(job("b"))
    assert [verdict.outcome for verdict in grader.finish()] == ["pass", "pass"]
    assert flaky.calls == ["beside others", "beside others", "alone", "alone"]


@pytest.mark.parametrize(
    ("cpu_s", "wall_s"),
    [(1.0, 72.0), (2.9, 24.82758), (0.13, 360.0), (0.004, 12.0)],
    ids=["12th", "4th", "92nd", "asleep"],
)
def test_what_was_kept_waiting_for_a_processor_is_given_more_time(
    pool: Pool, cpu_s: float, wall_s: float, monkeypatch: pytest.MonkeyPatch
):
    """Twelve seconds by the clock were too few for a second of CPU where 27 programs shared two processors."""
    given = []
    monkeypatch.setattr(pool, "_check", lambda job: given.append(job.wall_s) or Verdict(outcome="pass"))
    pool.check_alone(job("x = 1", cpu_s=3.0), after=Verdict(outcome="timeout_wall", cpu_s=cpu_s, starved=cpu_s > 0.1))
    assert given == [pytest.approx(wall_s)]


def test_identical_programs_run_once_and_verdicts_are_remembered(pool: Pool, tmp_path):
    for expected_runs in (1, 0):
        cache = VerdictCache(tmp_path)
        grader = Grader(pool, cache)
        for _ in range(3):
            grader.add(job("def f(x): return x + 1"))
        assert [verdict.passed for verdict in grader.finish()] == [True] * 3
        assert grader.num_distinct == expected_runs
        cache.close()


def test_a_doubtful_verdict_is_not_remembered(tmp_path):
    cache = VerdictCache(tmp_path)
    cache.put("key", Verdict(outcome="timeout_wall"))
    assert cache.get("key") is None


def test_another_test_or_limit_is_another_key():
    keys = {job_key(job("p")), job_key(job("p", "assert True")), job_key(job("p", cpu_s=9.0)), job_key(job("q"))}
    assert len(keys) == 4


def test_strict_refuses_to_run_when_a_layer_is_off(monkeypatch: pytest.MonkeyPatch):
    started = CheckerProcess.__init__

    def without_landlock(self) -> None:
        started(self)
        self.layers = [Layer(name="landlock", on=False, detail="not in this kernel")]

    monkeypatch.setattr(CheckerProcess, "__init__", without_landlock)
    with pytest.raises(EvalError, match="landlock: not in this kernel"):
        Pool(strict=True)
    with Pool(workers=1) as checkers:
        assert checkers.check_alone(job("def f(x): return x + 1")).passed


_AS_USER = """
import sys
sys.path.insert(0, sys.argv[1])
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import CheckJob
with Pool(workers=1) as pool:
    print(sorted(layer.name for layer in pool.layers if layer.on))
    for program in ("def f(x): return x + 1", "import os\\ndef f(x): return os.fork()", "open('/etc/passwd')"):
        job = CheckJob(program=program, entry_points=("f",), prelude="", test="assert f(1) == 2")
        print(pool.check_alone(job).outcome)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user, which only root can")
def test_it_works_as_an_ordinary_user():
    python = next((path for path in (os.path.realpath(sys.executable), "/usr/bin/python3") if _open_to_all(path)), None)
    if python is None or not _open_to_all(str(ROOT)):
        pytest.skip("no Python that another user may run")
    done = subprocess.run(
        [python, "-S", "-c", _AS_USER, str(ROOT)],
        user=1234,
        group=1234,
        capture_output=True,
        text=True,
        env={},
        cwd="/",
    )
    lines = done.stdout.splitlines()
    assert lines[1:] == ["pass", "sandbox_denied", "sandbox_denied"], done.stderr
    assert {"seccomp", "limits", "user"} <= set(ast.literal_eval(lines[0]))


def _open_to_all(path: str) -> bool:
    return os.path.exists(path) and all(parent.stat().st_mode & 0o001 for parent in Path(path).parents)


def test_closing_the_pool_leaves_no_process_behind():
    before = descendants()
    with Pool(workers=1) as checkers:
        checkers.check_alone(job("import time\ntime.sleep(60)", cpu_s=0.1))
        started = descendants() - before
        assert len(started) >= 2
    assert alive(started) == set()
