"""Calls of untrusted programs: values, exceptions, limits, hostile programs, batches over a pool."""

# ruff: noqa: E501
from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from decimal import Decimal

import pytest

from evalkit.sandbox.execute import (
    _IN_FLIGHT,
    STATES,
    CallLimits,
    CallResult,
    ProgramCalls,
    ProgramResult,
    execute_calls,
)
from evalkit.sandbox.pool import Pool
from tests.evalkit.processes import descendants

TENTH = CallLimits(call_cpu_s=0.1, memory_bytes=512 << 20)
LOOP = "[None for _ in iter(int, 1)]"


def run(pool: Pool, program: str, *calls: str, state: str = "fresh", limits: CallLimits = TENTH) -> ProgramResult:
    (result,) = execute_calls([ProgramCalls(program=program, calls=calls)], pool=pool, state=state, limits=limits)
    return result


def outcomes(result: ProgramResult) -> list[str]:
    return [call.outcome for call in result.calls]


def test_calls_give_plain_values_with_digest_text_and_time(pool: Pool):
    result = run(pool, "def f(x, y=0): return {x: [y]}", "f(1)", "f((2, 'a'), y=3.5)", "f(1)", "f")
    assert (result.outcome, outcomes(result)) == ("ran", ["value", "value", "value", "exception"])
    first, second, third, function = result.calls
    assert (first.value(), first.text, second.value()) == ({1: [0]}, "{1: [0]}", {(2, "a"): [3.5]})
    assert first.digest == third.digest != second.digest
    assert function.exception == "UnsupportedValueError"
    assert 0 < first.cpu_s < 0.1
    assert first.cpu_s < result.cpu_s < 1.0


def test_equal_values_of_different_programs_have_one_digest(pool: Pool):
    programs = ["def f(): return {'b': 1, 'a': {1, 2}}", "def f(): return dict(a={2.0, True}, b=1)"]
    programs += [
        "import numpy as np\ndef f(): return dict(a={1, 2}, b=np.int64(1))",
        "def f(): return dict(a=[1, 2], b=1)",
    ]
    batch = [ProgramCalls(program=program, calls=("f()",)) for program in programs]
    first, second, third, other = (result.calls[0].digest for result in execute_calls(batch, pool=pool))
    assert first == second == third != other


@pytest.mark.parametrize(
    ("call", "outcome", "exception"),
    [
        ("f(1)", "value", ""),
        ("raise_it(KeyError(1))", "exception", "KeyError"),
        ("raise_it(Own('text'))", "exception", "ValueError"),
        ("raise_it(MemoryError())", "exception", "MemoryError"),
        ("missing()", "exception", "NameError"),
        ("f(", "exception", "SyntaxError"),
        ("f()", "exception", "TypeError"),
        ("1 / 0", "exception", "ZeroDivisionError"),
        ("assert f(1) == 1", "value", ""),
        ("assert f(1) == 2", "exception", "AssertionError"),
        ("import math\nassert math.pi > f(3)", "value", ""),
        ("deep(0)", "exception", "RecursionError"),
        ("[0] * 10 ** 10", "oom", "MemoryError"),
        ("open('/etc/hostname')", "sandbox_denied", "PermissionError"),
        ("__import__('os').fork()", "sandbox_denied", "PermissionError"),
        ("__import__('os')._exit(0)", "exited", ""),
        ("__import__('sys').exit()", "exited", "SystemExit"),
        ("__import__('ctypes').string_at(0)", "killed", ""),
        (LOOP, "timeout_cpu", ""),
        ("__import__('time').sleep(60)", "timeout_wall", ""),
    ],
)
def test_each_kind_of_call_gets_its_outcome_and_costs_no_other_call_its_own(
    pool: Pool, call: str, outcome: str, exception: str
):
    program = (
        "class Own(ValueError): pass\ndef f(x): return x\ndef deep(x): return deep(x + 1)\n"
        "def raise_it(error): raise error\n"
    )
    result = run(pool, program, "f(7)", call, "f(8)")
    assert outcomes(result) == ["value", outcome, "value"], result
    assert (result.calls[0].value(), result.calls[2].value()) == (7, 8)
    assert result.calls[1].exception == exception, result.calls[1]


def test_an_answer_larger_than_a_message_is_an_exception_of_its_call(pool: Pool):
    # To make and encode such an answer takes about a tenth of a second: the limit is not the point here.
    limits = CallLimits(call_cpu_s=2.0, memory_bytes=512 << 20)
    result = run(pool, "def f(x): return x", "f(7)", "'x' * (20 << 20)", "f(8)", limits=limits)
    assert outcomes(result) == ["value", "exception", "value"], result
    assert result.calls[1].exception == "UnsupportedValueError"


def test_a_call_that_hangs_is_stopped_at_its_own_limit(pool: Pool):
    result = run(pool, "def f(x): return x", "f(1)", LOOP, "f(2)", LOOP, "f(3)")
    assert outcomes(result) == ["value", "timeout_cpu", "value", "timeout_cpu", "value"]
    for call in result.calls[1::2]:
        assert 0.1 <= call.cpu_s < 0.4
        assert "(limit 0.10 s)" in call.text


def test_a_loop_that_catches_everything_is_stopped(pool: Pool):
    program = (
        "def f():\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass"
    )
    assert outcomes(run(pool, program, "f()", "1")) == ["timeout_cpu", "value"]


def test_a_program_has_a_limit_over_all_its_calls(pool: Pool):
    limits = CallLimits(call_cpu_s=0.2, program_cpu_s=0.5)
    result = run(pool, "", "1", LOOP, LOOP, LOOP, LOOP, "2", limits=limits)
    assert outcomes(result)[:2] == ["value", "timeout_cpu"]
    assert outcomes(result)[-2:] == ["timeout_cpu", "timeout_cpu"]
    assert result.calls[-1].text == "not run: all calls together used 0.5 s of CPU"
    assert result.cpu_s < 1.5


@pytest.mark.slow
def test_a_program_that_hangs_in_several_calls_in_a_row_is_not_run_further(pool: Pool):
    limits = CallLimits(call_cpu_s=0.1, most_timeouts=2)
    assert outcomes(run(pool, "", LOOP, "1", LOOP, "2", limits=limits)) == ["timeout_cpu", "value"] * 2
    result = run(pool, "", "1", LOOP, LOOP, "2", "3", limits=limits)
    assert outcomes(result) == ["value"] + ["timeout_cpu"] * 4
    assert result.calls[-1].text == "not run: 2 calls before it used up their time"
    with pytest.raises(ValueError, match="most_timeouts is 0, expected a positive number"):
        CallLimits(most_timeouts=0)


@pytest.mark.slow
def test_a_call_after_one_that_hung_has_less_time_until_a_call_answers(pool: Pool):
    program = "import time\ndef f(s):\n    end = time.process_time() + s\n    while time.process_time() < end: pass\n"
    limits = CallLimits(call_cpu_s=0.4, after_timeout_cpu_s=0.05)
    result = run(pool, program, "f(0.2)", LOOP, "f(0.2)", "1", "f(0.2)", limits=limits)
    assert outcomes(result) == ["value", "timeout_cpu", "timeout_cpu", "value", "value"]
    assert "limit 0.05 s" in result.calls[2].text
    with pytest.raises(ValueError, match="after_timeout_cpu_s is 2, expected at most call_cpu_s"):
        CallLimits(after_timeout_cpu_s=2)


def test_memory_is_limited(pool: Pool):
    limits = CallLimits(memory_bytes=256 << 20)
    assert outcomes(run(pool, "", "len(bytearray(1 << 28))", "1", limits=limits)) == ["oom", "value"]


@pytest.mark.slow
def test_slow_statements_of_the_program_are_not_the_calls_time(pool: Pool):
    program = "import time\nend = time.thread_time() + 0.15\nwhile time.thread_time() < end: pass\ndef f(x): return x"
    assert outcomes(run(pool, program, "f(1)", "f(2)", "f(3)")) == ["value"] * 3


@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        ("def f(x) return x", "exception"),
        ("import no_such_module", "exception"),
        ("import sys\nsys.exit(0)", "exited"),
        ("import os\nos._exit(0)", "exited"),
        pytest.param("while True: pass", "timeout_cpu", marks=pytest.mark.slow),
        ("x = [0] * 10 ** 10", "oom"),
        ("open('/etc/passwd')", "sandbox_denied"),
    ],
)
def test_a_program_that_does_not_run_gives_its_outcome_to_every_call(pool: Pool, program: str, outcome: str):
    result = run(pool, program, "f(1)", "f(2)", limits=CallLimits(program_cpu_s=0.5))
    assert (result.outcome, outcomes(result)) == (outcome, [outcome, outcome])
    assert result.calls[0].text == result.detail
    assert run(pool, program, limits=CallLimits(program_cpu_s=0.5)).outcome == outcome


@pytest.mark.slow
def test_a_program_that_sleeps_is_not_repeated(pool: Pool):
    started = time.monotonic()
    result = run(pool, "import time\ntime.sleep(60)", "1", limits=CallLimits(program_cpu_s=0.5))
    assert (result.outcome, outcomes(result)) == ("timeout_wall", ["timeout_wall"])
    assert "running the program's own statements" in result.detail
    assert time.monotonic() - started < 4.0


@pytest.mark.slow
def test_a_program_that_passes_its_deadline_by_the_clock_is_repeated_with_more_time(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(CallLimits, "wall_s", 0.3)
    result = run(pool, "import time\ndef f(): time.sleep(0.5)", "f()", limits=CallLimits(call_cpu_s=0.5))
    assert outcomes(result) == ["value"]


def test_a_program_without_calls_runs(pool: Pool):
    assert run(pool, "x = 1") == ProgramResult(outcome="ran", calls=(), cpu_s=pytest.approx(0.0, abs=0.2))


COUNTS = "import sys, random\nseen = []\ndef f(x, kept=[]):\n    kept.append(x)\n    seen.append(x)\n    return len(seen), kept"


@pytest.mark.parametrize(
    ("state", "values"),
    [("shared", [(1, [1]), (2, [1, 2])]), ("fresh", [(1, [1]), (1, [2])]), ("process", [(1, [1]), (1, [2])])],
)
def test_the_state_that_a_call_sees_is_the_one_asked_for(pool: Pool, state: str, values: list[object]):
    result = run(pool, COUNTS, "f(1)", "f(2)", state=state)
    assert [call.value() for call in result.calls] == values


def test_modules_that_a_call_changed_are_shared_unless_each_call_has_a_process(pool: Pool):
    calls = ("sys.__dict__.setdefault('left', 0)", "hasattr(sys, 'left')")
    found = {state: run(pool, "import sys", *calls, state=state).calls[1].value() for state in STATES}
    assert found == {"shared": True, "fresh": True, "process": False}


def test_random_numbers_are_the_same_in_every_fresh_call(pool: Pool):
    first, second = run(pool, "import random", "random.random()", "random.random()").calls
    assert first.digest == second.digest


HOSTILE = {
    "equal to everything": "class E(list):\n    def __eq__(s, o): return True\n    __hash__ = None\ndef f(x): return E([0])",
    "a repr that lies": "class E(int):\n    def __repr__(s): return '2'\n    __str__ = __repr__\ndef f(x): return E(0)",
    "a reduce that runs code": "class E(dict):\n    def __reduce__(s): return (exec, ('raise SystemExit',))\ndef f(x): return E()",
    "a class that lies": "class E:\n    __class__ = int\n    def __index__(s): return 2\ndef f(x): return E()",
    "the digest forged": "import os, struct\ndef f(x):\n    b = b'{\"ok\":0,\"digest\":\"1\",\"outcome\":\"pass\",\"cpu_s\":-5}'\n    os.write(3, struct.pack('>Q', len(b)) + b)\n    return 0",
    "the encoder replaced": "import sys\nv = sys.modules['evalkit.sandbox.guest.calls']\nv.encode = lambda x: {'t': 'no', 'v': 1}\ndef f(x): return 2",
    "a call found on the stack": (
        "import sys, gc\ndef f(x):\n    frame, seen = sys._getframe(), []\n    while frame:\n"
        "        seen += [repr(v) for v in frame.f_locals.values() if isinstance(v, (str, list, dict)) and v is not seen]\n"
        "        frame = frame.f_back\n    return any('SECRET' + 'VALUE' in text for text in seen)"
    ),
    "printed floods": "def f(x):\n    for _ in range(100): print('x' * (1 << 20))\n    return 0",
    "answers in advance": "import os, struct\nb = b'{\"ok\":2}'\nos.write(3, (struct.pack('>Q', len(b)) + b) * 50)\ndef f(x): return 0",
    "an endless answer announced": "import os\ndef f(x):\n    os.write(3, b'\\xff' * 64)\n    return 0",
    "deep JSON": "import os, struct\ndef f(x):\n    b = b'{\"ok\":' + b'[' * 200000 + b']' * 200000 + b'}'\n    os.write(3, struct.pack('>Q', len(b)) + b)",
    "a number without end": "import os, struct\ndef f(x):\n    b = b'{\"ok\":{\"t\":\"decimal\",\"v\":\"1e999999999\"},\"cpu_s\":NaN}'\n    os.write(3, struct.pack('>Q', len(b)) + b)",
}  # fmt: skip
"""Programs that try to be taken for one that returns 2 to `f(1)`."""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_is_not_taken_for_an_honest_one(pool: Pool, name: str):
    honest = run(pool, "def f(x): return x + 1", "f(1)").calls[0]
    result = run(pool, HOSTILE[name], "f(1)", "f(1)", limits=CallLimits(call_cpu_s=0.5))
    assert len(result.calls) == 2
    if name not in ("answers in advance", "the digest forged"):  # which only misstate their own outputs
        assert all(call.digest != honest.digest for call in result.calls), result
    for call in result.calls:
        assert call.outcome in ("value", "exited", "exception", "timeout_cpu"), call
        assert call.cpu_s >= 0
        if call.has_form:
            assert type(call.value()) in (type(None), int, list, dict, bool, Decimal)
    assert run(pool, "def f(x): return x + 1", "f(1)").calls[0].digest == honest.digest


def test_expected_values_are_compared_on_plain_values_only(pool: Pool):
    lie = run(pool, HOSTILE["equal to everything"], "f(1)").calls[0].value()
    assert type(lie) is list
    assert lie != 2


def test_long_values_keep_digest_and_text_and_lose_their_form(pool: Pool):
    limits = CallLimits(value_bytes=1000)
    short, long, longer = run(pool, "", "'x' * 900", "'x' * 1000", "'x' * 100000", limits=limits).calls
    assert (short.has_form, long.has_form, longer.has_form) == (True, False, False)
    assert len({short.digest, long.digest, longer.digest}) == 3
    assert (long.text[:4], longer.text[:14]) == ("'xxx", "a value of 100")
    with pytest.raises(ValueError, match="no plain value"):
        long.value()


def test_results_come_in_order_and_programs_are_read_lazily(pool: Pool):
    read: list[int] = []

    def programs() -> Iterator[ProgramCalls]:
        for number in itertools.count():
            read.append(number)
            slow = "import time\ntime.sleep(0.2)\n" if number == 0 else ""
            yield ProgramCalls(program=f"{slow}def f(): return {number}", calls=("f()",))

    results = execute_calls(programs(), pool=pool)
    assert read == []
    values = [result.calls[0].value() for result in itertools.islice(results, 30)]
    assert values == list(range(30))
    assert len(read) <= 31 + _IN_FLIGHT * pool.workers
    results.close()
    assert run(pool, "", "1").calls[0].value() == 1


@pytest.mark.slow
def test_what_is_killed_from_outside_is_executed_again():
    before = descendants()
    with Pool(workers=1) as checkers:

        def kill() -> None:
            time.sleep(0.5)
            os.kill(max(int(process.split()[0]) for process in descendants() - before), signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        result = run(checkers, "import time\ntime.sleep(1.2)", "1")
        thread.join()
    assert (result.outcome, outcomes(result)) == ("ran", ["value"])


def test_a_program_too_long_to_send_is_an_exception(pool: Pool):
    for program, call in (("#" + "x" * 17_000_000, "1"), ("", "1 #" + "x" * 17_000_000)):
        result = run(pool, program, call)
        assert (result.outcome, outcomes(result)) == ("exception", ["exception"])
        assert result.detail == "a program of 17 MB, limit 16.8 MB"


def test_wrong_settings_are_refused(pool: Pool):
    with pytest.raises(ValueError, match="state is 'forked', expected one of shared, fresh, process"):
        execute_calls([], pool=pool, state="forked")
    with pytest.raises(ValueError, match="call_cpu_s is 0, expected a positive number"):
        CallLimits(call_cpu_s=0)
    assert CallResult(outcome="exception", text="a\nb").text == "a\\nb"
