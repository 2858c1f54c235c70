"""Pools of checkers: replaced checkers, patience on a loaded machine, strict confinement, processes left behind."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import EvalError
from evalkit.sandbox import pool as pool_module
from evalkit.sandbox.checker_client import CheckerProcess
from evalkit.sandbox.guest.isolation import Layer
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import CheckJob, Verdict
from tests.evalkit.processes import alive, descendants
from tests.evalkit.sandbox.jobs import job

ROOT = Path(__file__).resolve().parents[3]


def test_a_checker_that_does_not_answer_is_replaced(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool_module, "_GRACE_S", -3.5)  # the pool gives the checker up before its own deadline
    with Pool(workers=1) as checkers:
        assert checkers.check_alone(job("import time\ntime.sleep(60)", cpu_s=0.2)).outcome == "timeout_wall"
        monkeypatch.setattr(pool_module, "_GRACE_S", 10.0)
        assert checkers.check_alone(job("def f(x): return x + 1")).passed


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


def test_a_loop_on_a_machine_that_gets_busier_ends_as_a_cpu_timeout(pool: Pool, monkeypatch: pytest.MonkeyPatch):
    """Each run gets a smaller share of a processor than the one before it."""
    given: list[float] = []
    shares = iter((0.1, 0.04, 0.004, 0.004))

    def check(job: CheckJob) -> Verdict:
        given.append(job.wall_s)
        cpu_s = next(shares) * job.wall_s
        outcome = "timeout_cpu" if cpu_s >= job.cpu_s else "timeout_wall"
        return Verdict(outcome=outcome, cpu_s=cpu_s, starved=True)

    monkeypatch.setattr(pool, "_check", check)
    assert pool.check_alone(job("x = 1", cpu_s=3.0)).outcome == "timeout_wall"
    assert given == pytest.approx([12.0, 60.0, 150.0, 360.0])  # never more than thirty times as long
    shares = iter((0.1, 0.04, 0.03))
    assert pool.check_alone(job("x = 1", cpu_s=3.0)).outcome == "timeout_cpu"


def test_a_sleeping_program_is_not_given_more_time(pool: Pool, monkeypatch: pytest.MonkeyPatch):
    given: list[float] = []

    def check(job: CheckJob) -> Verdict:
        given.append(job.wall_s)
        return Verdict(outcome="timeout_wall", cpu_s=0.04 * job.wall_s)

    monkeypatch.setattr(pool, "_check", check)
    assert pool.check_alone(job("x = 1", cpu_s=3.0)).outcome == "timeout_wall"
    assert given == [12.0]


def test_strict_refuses_to_run_when_a_layer_is_off(monkeypatch: pytest.MonkeyPatch):
    started = CheckerProcess.__init__

    def without_landlock(self, **settings: Any) -> None:
        started(self, **settings)
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


@pytest.mark.slow
def test_closing_the_pool_leaves_no_process_behind():
    before = descendants()
    with Pool(workers=1) as checkers:
        checkers.check_alone(job("import time\ntime.sleep(60)", cpu_s=0.1))
        started = descendants() - before
        assert len(started) >= 2
    assert alive(started) == set()


@pytest.mark.slow
def test_no_process_is_left_when_a_pool_is_ended_in_the_middle():
    before = descendants()
    with pytest.raises(KeyboardInterrupt), Pool(workers=2) as checkers:
        started = time.monotonic()
        for number in range(4):
            checkers.submit(job(f"import time\ntime.sleep({30 + number})"))
        time.sleep(0.5)
        running = descendants() - before
        raise KeyboardInterrupt
    assert time.monotonic() - started < 5.0
    assert len(running) >= 4
    deadline = time.monotonic() + 10.0
    while alive(running) and time.monotonic() < deadline:  # orphans are collected by process 1 in its own time
        time.sleep(0.05)
    assert alive(running) == set()
