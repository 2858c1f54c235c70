"""The trusted process that decides: it holds the tests and questions programs that run in guests.

`checker_client.py` starts it as a process of its own. Requests come in on standard input as JSON lines, answers leave
on standard output:

    {"check": fields of verdict.CheckJob}     the fields of a `verdict.Verdict`
    {"calls": fields of an execution}         the fields of an `execute.ProgramResult`
    {"cell": source, "session": number, ...}  the fields of an `interpreter.CellResult`

All go through a `Session` with a guest. Guarantee: a pass means that the test's source ran to its end, in this
process, on values that crossed from the guest, in time. After a call without an answer nothing turns the verdict into a
pass, not even a test that catches every exception.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sys
import time
import warnings
from typing import Any, Protocol

from evalkit.sandbox.guest import isolation
from evalkit.sandbox.guest.zygote import import_numpy
from evalkit.sandbox.host import call_execution
from evalkit.sandbox.host.assertion_check import AssertionCheck
from evalkit.sandbox.host.guest_exit import Outcome
from evalkit.sandbox.host.interpreter_sessions import InterpreterSessions
from evalkit.sandbox.host.session import OutOfStepError, Session
from evalkit.sandbox.host.zygote_client import ONE_THREAD, Zygote
from evalkit.sandbox.wire.errors import UnsupportedValueError
from evalkit.sandbox.wire.messages import ChannelError


class CheckTimeoutError(BaseException):
    """The check itself ran past the deadline. Not an Exception: a test must not catch it."""


class Check(Protocol):
    """What decides on one program's answers."""

    def run(self, session: Session) -> Outcome:
        """Question the program; return the outcome or raise."""

    def outcome_of(self, error: BaseException, session: Session) -> Outcome:
        """Return the outcome that an exception of `run` stands for."""


def check(zygote: Zygote, job: dict[str, Any], *, numpy_folder: str) -> dict[str, Any]:
    """Check one program.

    Args:
        zygote: The process that forks its guest.
        job: The fields of a `verdict.CheckJob`.
        numpy_folder: The folder that numpy is installed in, or empty.

    Returns:
        The fields of its `verdict.Verdict`.

    Raises:
        ChannelError, OSError: The zygote is unusable.
    """
    if job["inputs"] is None:
        try:
            return _run(zygote, job, AssertionCheck(job))
        except OutOfStepError:
            return _run(zygote, job, AssertionCheck(job, prefetch=False))
    from evalkit.sandbox.evalplus.check import DifferentialCheck  # a fifth of the start-up; few jobs need it

    both = DifferentialCheck(job, suites=("base", "plus"), numpy_folder=numpy_folder)
    verdict = _run(zygote, job, both) | {"base_passed": both.base_passed}
    if not both.base_passed or verdict["outcome"] in ("pass", "infra_error", "timeout_cpu"):
        return verdict
    # EvalPlus gives the added inputs a process of their own: what the base inputs left behind must not decide.
    added = _run(zygote, job, DifferentialCheck(job, suites=("plus",), numpy_folder=numpy_folder))
    return added | {"base_passed": True, "cpu_s": verdict["cpu_s"] + added["cpu_s"]}


def _run(zygote: Zygote, job: dict[str, Any], program_check: Check) -> dict[str, Any]:
    """Run one check on one guest; return the fields of the verdict.

    Raises:
        OutOfStepError: The test made another call than was prefetched.
    """
    session = Session(zygote, cpu_limit_s=job["cpu_limit_s"], memory_bytes=job["memory_bytes"], wall_s=job["wall_s"])
    try:
        outcome, detail = _within_deadline(session, program_check)
    finally:
        ended = session.end()
    if session.out_of_step:
        raise OutOfStepError
    if session.failure:
        outcome, detail = session.explain(ended)
    verdict = {"outcome": outcome, "detail": detail, "cpu_s": ended.cpu_s, "in_process": job["inline"]}
    return verdict | {"starved": True} if outcome == "timeout_wall" and ended.starved else verdict


def _within_deadline(session: Session, program_check: Check) -> Outcome:
    """Run a check; an alarm ends it when its own code runs past the deadline."""

    def expire(*_: object) -> None:
        session.failure = session.failure or Outcome("timeout_wall", "the check ran past the deadline")
        raise CheckTimeoutError

    signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, session.deadline - time.monotonic() + 1.0))
    try:
        return program_check.run(session)
    except CheckTimeoutError:
        return Outcome("timeout_wall", "the check ran past the deadline")
    except BaseException as error:
        return program_check.outcome_of(error, session)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Zygotes:
    """The zygotes of one checker: one without numpy, and one with it, which is started when needed."""

    def __init__(self, *, root: str, numpy_folder: str, **folders: tuple[str, ...]) -> None:
        """Keep the arguments of `Zygote`; `folders` are `libraries` and `import_paths`."""
        self._root, self._numpy_folder, self._folders = root, numpy_folder, folders
        self._running: dict[bool, Zygote] = {}

    def get(self, *, numpy: bool) -> Zygote:
        """Return a running zygote. Importing numpy makes every fork three times slower, so few programs get it.

        Raises:
            ChannelError, OSError: It does not start.
        """
        numpy = numpy and bool(self._numpy_folder)
        if numpy in self._running and self._running[numpy].process.poll() is not None:  # killed since the last job
            self._running.pop(numpy).close()
        if numpy not in self._running:
            if numpy:
                import_numpy(self._numpy_folder, more=("numpy.ma",))  # answers may hold its arrays
            folder = self._numpy_folder if numpy else ""
            self._running[numpy] = Zygote(root=self._root, numpy_folder=folder, **self._folders)
        return self._running[numpy]

    def drop(self, *, numpy: bool) -> None:
        """Kill a zygote that is unusable; the next job starts another one."""
        zygote = self._running.pop(numpy and bool(self._numpy_folder), None)
        if zygote is not None:
            zygote.process.kill()
            zygote.close()

    def close(self) -> None:
        """End all zygotes."""
        for zygote in self._running.values():
            zygote.close()


def _answer(
    zygotes: _Zygotes, sessions: InterpreterSessions, request: dict[str, Any], *, numpy_folder: str
) -> dict[str, Any]:
    """Return the answer to one request; an unusable zygote is an infra_error, never the program's failure."""
    numpy = _wants_numpy(request)
    try:
        zygote = zygotes.get(numpy=numpy)
        if "cell" in request:
            return sessions.run(zygote, request)
        if "check" in request:
            return check(zygote, request["check"], numpy_folder=numpy_folder)
        return call_execution.execute(zygote, request["calls"])
    except (ChannelError, OSError, UnsupportedValueError) as error:  # the zygote's failure, not the program's
        zygotes.drop(numpy=numpy)
        sessions.forget()
        return {"outcome": "infra_error", "detail": f"{type(error).__name__}: {error}"}


def _wants_numpy(request: dict[str, Any]) -> bool:
    """Return whether a program names numpy. A session gets it in any case: a later cell may need it."""
    if "check" in request:
        return "numpy" in request["check"]["program"]
    return "cell" in request or call_execution.wants_numpy(request["calls"])


def main(
    *,
    root: str,
    numpy_folder: str,
    memory_bytes: int,
    libraries: tuple[str, ...] = (),
    import_paths: tuple[str, ...] = (),
) -> None:
    """Serve requests from standard input until it closes, within `memory_bytes` of address space.

    Args:
        root: The folder that holds the evalkit package.
        numpy_folder: The folder that numpy is installed in, or empty for no numpy.
        memory_bytes: Address space of this process.
        libraries: Folders of packages that programs may import.
        import_paths: Folders that programs may read and import from.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a test that prints must not write into the answers
    sys.stdout = io.StringIO()
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    warnings.simplefilter("ignore")  # warnings about what a test does with an answer
    os.environ.update(ONE_THREAD)  # in case it imports numpy
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a signal to the whole process group ends it without a traceback
    zygotes = _Zygotes(root=root, numpy_folder=numpy_folder, libraries=libraries, import_paths=import_paths)
    sessions = InterpreterSessions()
    try:
        layers = zygotes.get(numpy=False).layers
    except (ChannelError, OSError) as error:
        answers.write(json.dumps({"failed": str(error)}) + "\n")
        return
    isolation.hide_memory()
    answers.write(json.dumps({"layers": layers}) + "\n")
    for line in sys.stdin:
        answer = _answer(zygotes, sessions, json.loads(line), numpy_folder=numpy_folder)
        try:
            answers.write(json.dumps(answer) + "\n")
        except BrokenPipeError:  # evalkit ended; nobody waits for the other jobs
            os._exit(0)
        sys.stdout = io.StringIO()
    zygotes.close()
