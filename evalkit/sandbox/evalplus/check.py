"""Judge a program on EvalPlus' inputs: its answers beside the reference's, in EvalPlus' time limits.

`CheckJob.inputs` names a row of EvalPlus' data: {"path", "sha256", "task_id", "cache", "machine", "quick"?}. "quick"
asks only inputs on which the reference takes little time. Inputs cross the wall at once, answers come back in frames
(`batches.py`). Most answers are equal to the expected ones byte by byte; only the others are decoded and compared by
EvalPlus' rules (`plus_rules.py`).

Limits count the CPU time of the program's process, read from the kernel's clock of that process after each frame: the
program cannot set it, and other work on the machine does not count.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from typing import Any, NamedTuple

from evalkit.sandbox.evalplus.batches import FLUSH_S, OTHER, split
from evalkit.sandbox.evalplus.rules import ANY_OBJECT, agrees
from evalkit.sandbox.evalplus.task import SUITES, PlusTask, Suite, load
from evalkit.sandbox.guest.zygote import import_numpy
from evalkit.sandbox.wire.values import ChannelError, DeadlineError, frame, pack, send, wait_ready

_SLACK_S = FLUSH_S + 0.05
"""CPU time of a frame beside its last call: the calls before it, and writing the answers."""
_TOTAL_SLACK_S = 2.0
"""CPU time beyond a suite's total: EvalPlus waits so much longer."""
_AGAIN_S = 30.0
"""CPU seconds for writing answers anew in JSON, which is not the program's work."""
_ASLEEP = 0.01
"""Share of a processor below which a program sleeps; one that waits for a processor gets more."""
_ASLEEP_S = 0.5
"""Time by the clock beyond the limit after which a sleeping program is stopped."""
_CREDENTIALS = struct.Struct("=iII")  # process, user, group
_MORE = pack({"more": True})
_SO_PASSCRED = getattr(socket, "SO_PASSCRED", 16)


class _TooSlowError(Exception):
    """A call, or all of them together, went beyond a limit. `args` are the outcome and the detail."""


def check(
    session: Any, job: dict[str, Any], first: dict[str, Any], *, suites: tuple[str, ...] = SUITES
) -> tuple[str, str]:
    """Start the program and compare every answer with the reference's; return (outcome, detail).

    `session` is a `judge.Session`; its `base_passed` tells afterwards whether the base inputs passed.
    """
    inputs = job["inputs"]
    try:
        task = load(inputs["path"], inputs["sha256"], inputs["task_id"], inputs["cache"], inputs.get("machine", ""))
    except MemoryError:
        return "infra_error", "the reference needs more memory than a judge may have"
    program = _Program(session, numpy_folder=job["numpy_folder"])
    try:
        chosen = [suite for suite in task.suites if suite.name in suites]
        for number, suite in enumerate([suite.quick() for suite in chosen] if inputs.get("quick") else chosen):
            program.begin(suite)
            if number == 0:
                session.value(program.start(first))
            failed = _run(program, task, suite)
            if suite.name == "base":
                session.base_passed = failed is None
            if failed is not None:
                return failed
    except _TooSlowError as error:
        outcome, detail = error.args
        return outcome, detail
    except ChannelError as error:
        session.broken = session.broken or ("exited", str(error))
        raise
    return "pass", ""


def _run(program: _Program, task: PlusTask, suite: Suite) -> tuple[str, str] | None:
    """Compare the answers to one suite's inputs; return (outcome, detail) of the first that does not pass."""
    place = 0
    message = pack({"calls": task.entry_point, "apart": suite.apart}) + frame(suite.message)
    while place < len(suite):
        calls = _CallsFrom(task, suite, place)
        answers = split(program.ask(message, limit_s=suite.limits_s[place], what=calls))
        if not 0 < len(answers) <= len(suite) - place:
            raise ChannelError("another number of answers than of inputs")
        unequal = [
            number
            for number, (kind, data) in enumerate(answers)
            if kind == OTHER or not suite.matches(place + number, data)
        ]
        for number, answer in zip(unequal, program.again(unequal), strict=True):
            if not _passes(program, Call(task, suite, place + number), answer):
                return "wrong", program.detail
        place += len(answers)
        message = _MORE
    return None


class Call:
    """One call of the program's function, for comparing and for telling people."""

    def __init__(self, task: PlusTask, suite: Suite, place: int) -> None:
        self.task, self.suite, self.place = task, suite, place

    def __str__(self) -> str:
        args = ", ".join(_short(value) for value in self.suite.args(self.place))
        return f"{self.task.entry_point}({args})"


class _CallsFrom(Call):
    """A call, or a later one of the same frame: which one takes time is not known before it ends."""

    def __str__(self) -> str:
        return f"a call from {super().__str__()} on"


def _passes(program: _Program, call: Call, answer: Any) -> bool:
    """Say whether an answer passes; if not, `program.detail` says why.

    Raises:
        Exception: the program's own, where it raised one.
    """
    task, suite = call.task, call.suite
    if task.task_id.startswith("Mbpp/") and task.entry_point in ANY_OBJECT and _has_no_form(answer):
        given: Any = object()
    else:
        given = program.session.value(answer)
    wanted, tolerance = suite.wanted(call.place), suite.tolerance(call.place)
    if tolerance != 0 and "numpy" not in sys.modules:
        import_numpy(program.numpy_folder)
    subclass = isinstance(answer, dict) and bool(answer.get("subclass"))
    if agrees(
        task.task_id,
        task.entry_point,
        suite.args(call.place),
        given,
        wanted,
        tolerance,
        subclass=subclass,
    ):
        return True
    added = "added input: " if suite.name == "plus" else ""
    program.detail = f"{added}{call} gave {_short(given)}, expected {_short(wanted)}"
    return False


def _has_no_form(answer: Any) -> bool:
    error = answer.get("error") if isinstance(answer, dict) else None
    return isinstance(error, list) and error[:1] == ["UnsupportedValueError"]


class _Program:
    """The conversation with one program, in limits of CPU time."""

    def __init__(self, session: Any, *, numpy_folder: str) -> None:
        self.session = session
        self.numpy_folder = numpy_folder
        self.detail = ""
        self._clock: int | None = None
        self._total_s, self._spent_s = 0.0, 0.0

    def begin(self, suite: Suite) -> None:
        """Give the program the time of a suite."""
        self._total_s, self._spent_s = suite.total_s + _TOTAL_SLACK_S, 0.0

    def start(self, first: dict[str, Any]) -> Any:
        """Send the program itself, and return its answer's message once it ran."""
        channel = self.session.channel
        with socket.socket(fileno=os.dup(channel)) as view:
            view.setsockopt(socket.SOL_SOCKET, _SO_PASSCRED, 1)
            try:
                send(channel, pack(first | {"hello": True}), deadline=self.session.deadline)
                wait_ready(channel, write=False, deadline=self.session.deadline)
                _, parts, _, _ = view.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size), socket.MSG_PEEK)
            except (OSError, DeadlineError):
                parts = []
            view.setsockopt(socket.SOL_SOCKET, _SO_PASSCRED, 0)
        # The kernel names the sender of the first bytes by its number here, whatever its own namespace calls it.
        process = _CREDENTIALS.unpack(parts[0][2])[0] if parts else 0
        self._clock = (~process << 3) | 2 if process > 0 else None  # as clock_getcpuclockid(3) makes it
        self._receive(limit_s=self._total_s, what="starting the program")
        return self._json(self._receive(limit_s=self._total_s, what="running the program's own statements"))

    def ask(self, message: bytes, *, limit_s: float, what: Call | str) -> bytes:
        """Send a message and return the body of the answer's, which may take `limit_s` CPU seconds.

        Raises:
            _TooSlowError: it took longer.
            ChannelError: the program ended.
        """
        try:
            send(self.session.channel, message, deadline=self.session.deadline)
        except (ChannelError, DeadlineError) as error:
            self.session.broken = ("exited", str(error))
            raise
        return self._receive(limit_s=limit_s, what=what)

    def again(self, places: list[int]) -> list[Any]:
        """Return the answers of the last frame at these places, as `Session.value` takes them."""
        if not places:
            return []
        message = self._json(self.ask(pack({"again": places}), limit_s=_AGAIN_S, what="sending its answers"))
        answers = message.get("ok") if isinstance(message, dict) else None
        if not isinstance(answers, list) or len(answers) != len(places):
            self.session.value(message if isinstance(message, dict) and "error" in message else None)
            raise AssertionError("unreachable: what is neither a value nor an error breaks the session")
        return answers

    def _json(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            self.session.broken = ("exited", f"not a message: {type(error).__name__}")
            raise ChannelError("not a message") from None

    def _cpu_s(self) -> float | None:
        """Return the CPU seconds that the program has used; None where the kernel does not tell."""
        try:
            return time.clock_gettime(self._clock) if self._clock is not None else None
        except OSError:
            return None

    def _receive(self, *, limit_s: float, what: Call | str) -> bytes:
        left_s = self._total_s - self._spent_s
        limit = _Limit(what, limit_s, limit_s + _SLACK_S) if limit_s + _SLACK_S < left_s else None
        limit = limit or _Limit(f"{what}, with all before it,", self._total_s - _TOTAL_SLACK_S, left_s)
        started, before = time.monotonic(), self._cpu_s()
        wait_s = limit.most_s
        while True:
            deadline = min(self.session.deadline, time.monotonic() + max(FLUSH_S, wait_s))
            try:
                body: bytes = self.session.reader.receive_bytes(deadline)
            except DeadlineError:
                wait_s = limit.most_s - self._used_s(started, before, limit)
                if time.monotonic() >= self.session.deadline:
                    self.session.broken = ("timeout_wall", "no answer in time")
                    raise
            except ChannelError as error:
                self.session.broken = ("exited", str(error))
                raise
            else:
                self._spent_s += self._used_s(started, before, limit)
                return body

    def _used_s(self, started: float, before: float | None, limit: _Limit) -> float:
        """Return the CPU seconds used since `before`, if they are within the limit."""
        elapsed_s, now = time.monotonic() - started, self._cpu_s()
        if before is None or now is None:
            if elapsed_s > 3.0 * limit.most_s + 3.0:
                raise _TooSlowError(
                    "timeout_wall", f"{limit.what} took {elapsed_s:.1f} s by the clock; CPU time is not known here"
                )
            return min(elapsed_s, limit.most_s)
        used_s = now - before
        if used_s > limit.most_s:
            raise _TooSlowError("timeout_cpu", f"{limit.what} used {used_s:.2f} s of CPU (limit {limit.told_s:.2f} s)")
        if elapsed_s > limit.most_s + _ASLEEP_S and used_s < _ASLEEP * elapsed_s:
            raise _TooSlowError(
                "timeout_wall", f"{limit.what} slept for {elapsed_s:.2f} s (limit {limit.told_s:.2f} s)"
            )
        return used_s


class _Limit(NamedTuple):
    """CPU time for one message: of what, as told to people, and with the slack."""

    what: Call | str
    told_s: float
    most_s: float


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits; endless nesting
        return f"<{type(value).__name__}>"
    return text if len(text) <= 120 else text[:117] + "..."
