"""Interpreter sessions: state, output, limits, resets, separation, hostile code, and processes that are left."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from evalkit.sandbox.host.interpreter_sessions import MOST_GUESTS
from evalkit.sandbox.interpreter import Interpreter, InterpreterSession, SessionLimits
from evalkit.sandbox.pool import Pool
from tests.evalkit.processes import alive, descendants
from tests.evalkit.sandbox.hostile_programs import FORGED, HARMFUL
from tests.evalkit.sandbox.test_hostile_programs import SLOW, Outside

LIMITS = SessionLimits(call_cpu_s=0.3, characters=400)


@pytest.fixture(scope="module")
def interpreter(pool: Pool) -> Iterator[Interpreter]:
    with Interpreter(pool, LIMITS) as sessions:
        yield sessions


@pytest.fixture
def session(interpreter: Interpreter) -> Iterator[InterpreterSession]:
    opened = interpreter.open()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("hostile")
    folder.chmod(0o755)
    thing = Outside(folder)
    yield thing
    thing.process.kill()
    thing.process.wait()
    thing.socket.close()


def test_names_live_from_cell_to_cell(session: InterpreterSession):
    first = session.run("x = [1]\ndef f(): return x")
    second = session.run("x.append(2)\nf()")
    assert (first.outcome, first.output, first.is_new, first.is_alive) == ("ran", "", True, True)
    assert (second.output, second.is_new, second.is_alive) == ("[1, 2]", False, True)


@pytest.mark.parametrize(
    ("cell", "output"),
    [
        ("print('a')\n'b'", "a\n'b'"),
        ("print('a', end='')\n1", "a\n1"),
        ("1;", "1"),
        ("None", ""),
        ("x = 1", ""),
        ("", ""),
        ("# nothing", ""),
        ("import sys; print('e', file=sys.stderr)", "e\n"),
        ("def f():\n    '''A docstring.'''\nf.__doc__", "'A docstring.'"),
        ("import numpy as np\nnp.arange(3)", "array([0, 1, 2])"),
        ("print('\\ud800')", "\ud800\n"),
        ("import sys\nsys.stdout = None\nprint(1)", ""),
    ],
)
def test_output_is_what_a_notebook_shows(cell: str, output: str, session: InterpreterSession):
    result = session.run(cell)
    assert (result.outcome, result.output) == ("ran", output)


def test_a_traceback_names_the_lines_of_the_cells(session: InterpreterSession):
    session.run("def f(x):\n    return 1 / x")
    result = session.run("y = 0\nf(y)")
    assert result.outcome == "exception"
    assert result.detail == "ZeroDivisionError: division by zero"
    assert result.output.splitlines() == [
        "Traceback (most recent call last):",
        "  <cell 2>, line 2, in <module>",
        "    f(y)",
        "  <cell 1>, line 2, in f",
        "    return 1 / x",
        "ZeroDivisionError: division by zero",
    ]
    assert session.run("y").output == "0"


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("x = (", "SyntaxError"),
        ("x\0", "SyntaxError"),
        ("raise KeyError", "KeyError"),
        ("(" * 500 + ")" * 500, "Error"),
    ],
)
def test_a_cell_that_raises_keeps_the_state(cell: str, kind: str, session: InterpreterSession):
    session.run("kept = 7")
    result = session.run(cell)
    assert result.outcome == "exception"
    assert kind in result.output
    assert session.run("kept").output == "7"


@pytest.mark.parametrize("cell", ["print('x' * 10**6)", "'x' * 10**6", "raise ValueError('x' * 10**6)"])
def test_output_is_cut_and_says_so(cell: str, session: InterpreterSession):
    result = session.run(cell)
    assert "more characters" in result.output
    assert len(result.output) < 3 * LIMITS.characters + 200
    assert session.run("1").output == "1"


def test_a_long_traceback_keeps_its_end(session: InterpreterSession):
    result = session.run("def f(n): return f(n + 1)\nf(0)")
    assert "more frames" in result.output
    assert "RecursionError" in result.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("cell", "outcomes"),
    [
        ("while True: pass", {"timeout_cpu"}),
        ("import time\ntime.sleep(60)", {"timeout_wall"}),
        ("import os\nos._exit(0)", {"exited"}),
        ("import ctypes\nctypes.string_at(0)", {"killed", "sandbox_denied", "exception"}),
        ("import os\nos.close(3)", {"exited"}),
        ("import os\nos.write(3, b'\\xff' * 64)", {"exited"}),
    ],
)
def test_a_crash_or_timeout_resets_the_session(cell: str, outcomes: set[str], session: InterpreterSession):
    session.run("kept = 7")
    result = session.run(cell)
    assert result.outcome in outcomes, result
    again = session.run("kept")
    if result.is_alive:
        assert (again.output, again.is_new) == ("7", False)
    else:
        assert "NameError" in again.output
        assert again.is_new
    assert again.is_alive


def test_memory_is_limited(session: InterpreterSession):
    result = session.run("x = bytearray(4 << 30)")
    assert result.outcome == "oom"
    assert session.run("1").output == "1"


def test_all_cells_together_have_a_limit_of_time(pool: Pool):
    limits = SessionLimits(call_cpu_s=0.3, session_cpu_s=0.5)
    loop = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    with Interpreter(pool, limits) as sessions:
        session = sessions.open()
        outcomes = [session.run(loop).outcome for _ in range(3)]
    assert outcomes[0] == "ran"
    assert outcomes[-1] == "timeout_cpu"


def test_sessions_do_not_see_each_other(interpreter: Interpreter):
    opened = [interpreter.open() for _ in range(6)]
    for number, session in enumerate(opened):
        session.run(f"import builtins, math\nbuiltins.sorted = lambda x: {number}\nmath.pi = mine = {number}")
    for number, session in enumerate(opened):
        assert session.run("sorted([]), math.pi, mine").output == f"({number}, {number}, {number})"
    fresh = interpreter.open()
    assert fresh.run("import math\nsorted([]), math.pi > 3, 'mine' in globals()").output == "([], True, False)"
    for session in (*opened, fresh):
        session.close()


def test_the_files_of_the_machine_are_out_of_reach(session: InterpreterSession, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for cell in (
        f"open({str(secret)!r}).read()",
        "open('/etc/passwd').read()",
        f"open({str(tmp_path / 'new')!r}, 'w')",
    ):
        assert session.run(cell).outcome == "sandbox_denied"
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_more_sessions_than_guests_lose_the_state_that_was_idle_longest():
    with Pool(workers=1) as pool, Interpreter(pool, LIMITS) as sessions:
        opened = [sessions.open() for _ in range(MOST_GUESTS + 1)]
        assert {session.run("x = 1").outcome for session in opened} == {"ran"}
        assert opened[-1].run("x").output == "1"
        first = opened[0].run("x")
        assert first.is_new
        assert "NameError" in first.output


def test_a_cell_that_leaves_threads_ends_the_session(session: InterpreterSession):
    few = "import threading, time\nthreading.stack_size(32768)\n"
    result = session.run(few + "[threading.Thread(target=time.sleep, args=(600,)).start() for _ in range(200)]\n1")
    assert (result.output, result.is_alive) == ("1", False) or result.outcome in ("exception", "exited"), result
    again = session.run("threading")
    assert again.is_new
    assert "NameError" in again.output


def test_threads_that_end_keep_the_session(session: InterpreterSession):
    cell = "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as pool:\n"
    result = session.run(cell + "    kept = list(pool.map(lambda x: x * x, range(50)))\nkept[-1]")
    assert (result.output, result.is_alive) == ("2401", True)
    assert session.run("len(kept)").output == "50"


def test_a_closed_session_is_killed_at_once():
    with Pool(workers=1) as pool, Interpreter(pool, LIMITS) as sessions:
        sessions.open().run("1")
        before = descendants()
        session = sessions.open()
        session.run("x = 1")
        started = descendants() - before
        assert len(started) == 1
        session.close()
        assert left_of(started) == 0


def left_of(processes: set[str]) -> int:
    """Return how many of the processes still run; wait, since orphans are collected by process 1 in its own time."""
    deadline = time.monotonic() + 10.0
    while (left := alive(processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return len(left)


@pytest.mark.slow
def test_no_process_outlives_the_interpreter():
    with Pool(workers=2) as pool:
        before = descendants()
        with Interpreter(pool, LIMITS) as sessions:
            for _ in range(4):
                sessions.open().run("x = 1")
            started = descendants() - before
            assert len(started) >= 8  # two checkers, two zygotes, four guests
        assert left_of(started) == 0
        assert pool.workers == 2


@pytest.mark.slow
def test_a_pool_that_closes_ends_a_cell_that_runs():
    limits = SessionLimits(call_cpu_s=60.0, session_cpu_s=100.0)
    before = descendants()
    with Pool(workers=1) as pool:
        session = Interpreter(pool, limits).open()
        session.run("1")
        results = []
        thread = threading.Thread(target=lambda: results.append(session.run("while True: pass")))
        thread.start()
        time.sleep(0.3)
        started = descendants() - before
    thread.join(20)
    assert [result.outcome for result in results] == ["infra_error"]
    assert left_of(started) == 0


def test_a_killed_checker_is_replaced():
    with Pool(workers=1) as pool:
        before = descendants()
        with Interpreter(pool, LIMITS) as sessions:
            session = sessions.open()
            session.run("x = 1")
            for process in descendants() - before:
                with suppress(ProcessLookupError):  # it ended with its parent
                    os.kill(int(process.split()[0]), signal.SIGKILL)
            assert session.run("x").outcome == "infra_error"
            again = session.run("2")
            assert (again.output, again.is_new) == ("2", True)


def test_a_cell_that_is_too_long_is_refused(session: InterpreterSession):
    result = session.run("x = '" + "a" * (2 << 20) + "'")
    assert (result.outcome, result.output) == ("exception", "")
    assert "bytes" in result.detail


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in (*FORGED, *HARMFUL)]
)
@pytest.mark.slow
def test_no_harm_comes_from(name: str, interpreter: Interpreter, outside: Outside):
    session, neighbour = interpreter.open(), interpreter.open()
    neighbour.run("mine = 'untouched'")
    program = outside.fill((FORGED | HARMFUL)[name])
    for cell in (f"{program}\n\nf(1)", "f(1)"):
        result = session.run(cell)
        assert result.outcome != "infra_error", result
        assert len(result.output) < 3 * LIMITS.characters + 200
        assert "secret" not in result.output
    outside.check()
    assert neighbour.run("mine").output == "'untouched'"
    assert interpreter.open().run("1 + 1").output == "2", "the next session does not work"
    session.close()
    neighbour.close()
