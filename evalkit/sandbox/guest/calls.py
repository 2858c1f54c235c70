"""The guest's half of `execute_calls`: evaluate call expressions in a program's namespace.

The request is {"evaluate": [source, ...], "fresh": bool}. Each call is answered by a message of its own:
{"ok": value, "cpu_s": seconds} or {"error": [...], "cpu_s": seconds}. The seconds are this process' own statement: a
program can falsify them, as it can falsify everything here, and only misreports itself. The host's limits use the
kernel's clock.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from evalkit.sandbox.wire.messages import pack
from evalkit.sandbox.wire.values import encode

CALL_FILE = "<call>"

_process_clock, _thread_clock = time.process_time, time.thread_time  # the program may replace the module's


def answers(
    calls: list[str],
    code: CodeType,
    module: dict[str, Any],
    *,
    fresh: bool,
    failure: Callable[[BaseException], dict[str, Any]],
) -> Iterator[bytes]:
    """Yield the message that answers each call, in order.

    Args:
        calls: Sources: expressions, or statements, whose value is None.
        code: The compiled program.
        module: Its namespace after its own statements ran.
        fresh: Run the program's own statements in a new namespace before each call after the first.
        failure: Names an exception (`serve.failure_answer`).
    """
    for place, source in enumerate(calls):
        process_s, thread_s = _process_clock(), _thread_clock()
        try:
            if fresh and place:
                module = {}
                random.seed(0)
                exec(code, module)
            message = {"ok": encode(eval(_compiled(source), module))}
        except BaseException as error:
            message = failure(error)
        # With a limit of CPU time the process' clock advances in ticks of milliseconds; the thread's clock is exact.
        cpu_s = {"cpu_s": max(_process_clock() - process_s, _thread_clock() - thread_s)}
        try:
            yield pack(message | cpu_s)
        except BaseException as error:  # an answer that is too long
            yield pack(failure(error) | cpu_s)


def _compiled(source: str) -> CodeType:
    try:
        return compile(source, CALL_FILE, "eval", dont_inherit=True)
    except SyntaxError:
        return compile(source, CALL_FILE, "exec", dont_inherit=True)
