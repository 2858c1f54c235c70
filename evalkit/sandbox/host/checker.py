"""Who decides? A trusted process that holds the tests and calls the program through a wall.

Started as `python -I -S` by `pool.py`. Jobs come in on standard input as JSON lines (`verdict.CheckJob`), verdicts
leave on standard output. The judge runs the task's own test source; where the test calls the function under
test, a proxy sends the arguments to the untrusted process and hands back the plain value that came in answer.

Guarantees: a pass means that the test's source ran to its end, here, on values that came over the wall, in
time. After a call went unanswered nothing turns the verdict into a pass, whatever the test catches.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from types import CodeType
from typing import Any

from evalkit.sandbox.guest import isolation
from evalkit.sandbox.guest.zygote import import_numpy
from evalkit.sandbox.host.call_prefetch import prefetchable_calls
from evalkit.sandbox.host.program_text import stand_in
from evalkit.sandbox.host.zygote_client import ONE_THREAD, Zygote
from evalkit.sandbox.wire.values import (
    ChannelError,
    DeadlineError,
    Reader,
    UnsupportedValueError,
    decode,
    encode,
    pack,
    send,
)

_OWN = "raised by the program itself"


class CheckTimeoutError(BaseException):
    """The check itself ran past the deadline. Not an Exception: a test must not catch it."""


class OutOfStepError(BaseException):
    """The test made another call than was foreseen: run it again without foresight."""


class Session:
    """One program's conversation: its channel, its deadline, and the first thing that went wrong."""

    def __init__(self, channel: int, deadline: float) -> None:
        self.channel = channel
        self.reader = Reader(channel)
        self.deadline = deadline  # in time.monotonic seconds
        self.broken: tuple[str, str] | None = None  # (outcome, detail); set once, final
        self.raised: BaseException | None = None  # the last exception that came from the program
        self.last_call = ""
        self.ahead: deque[bytes] = deque()  # messages that were sent early; their answers come in this order
        self.base_passed = False  # of EvalPlus' inputs, the task's own
        self.out_of_step = False  # the test made another call than was foreseen; final, whatever the test catches

    def ask(self, request: dict[str, Any], *, ahead: tuple[bytes, ...] = ()) -> Any:
        """Send one request, unless that was done ahead, and return the answer's message.

        `ahead` are messages of the next requests, sent at once with this one.

        Raises:
            ChannelError, DeadlineError: there is none; the session is broken from here on.
            OutOfStepError: another request was sent ahead.
        """
        if self.broken:
            raise ChannelError(self.broken[1])
        if self.out_of_step:
            raise OutOfStepError
        message = pack(request)
        try:
            if not self.ahead:
                send(self.channel, message + b"".join(ahead), deadline=self.deadline)
                self.ahead.extend(ahead)
            elif self.ahead.popleft() != message:
                self.out_of_step = True
                raise OutOfStepError
            return self.reader.receive(self.deadline)
        except DeadlineError:
            self.broken = ("timeout_wall", "no answer in time")
            raise
        except ChannelError as error:
            self.broken = ("exited", str(error))
            raise

    def value(self, answer: Any) -> Any:
        """Return the value in an answer, or raise the exception that it names."""
        if isinstance(answer, dict) and "ok" in answer:
            try:
                return decode(answer["ok"])
            except (ValueError, RecursionError) as error:
                self.broken = ("exited", f"the answer is not a value: {error}")
                raise ChannelError(str(error)) from None
        try:
            kind, text, own = answer["error"]
            error_class = getattr(builtins, str(kind), None)
            if not (isinstance(error_class, type) and issubclass(error_class, Exception)):
                error_class = RuntimeError
            try:
                self.raised = error_class(str(text))
            except TypeError:  # UnicodeDecodeError and its like take more than a text
                self.raised = ValueError(str(text))
            self.raised.__notes__ = [str(kind), _OWN if own is True else ""]
        except (KeyError, TypeError, ValueError):
            self.broken = ("exited", "the answer is neither a value nor an error")
            raise ChannelError("not an answer") from None
        raise self.raised


def proxy(session: Session, name: str) -> Callable[..., Any]:
    """Return what stands for the program's function `name` in the tests."""

    def call(*args: Any, **kwargs: Any) -> Any:
        form = {
            "call": name,
            "args": [encode(value) for value in args],
            "kwargs": {key: encode(value) for key, value in kwargs.items()},
        }
        session.last_call = f"{name}({', '.join(_short(value) for value in args)})"
        value = session.value(session.ask(form))
        session.last_call += f" gave {_short(value)}"
        return value

    call.__name__ = name
    return call


@lru_cache(maxsize=4096)
def _compiled(source: str, name: str) -> CodeType:
    return compile(source, name, "exec", dont_inherit=True)


def judge(zygote: Zygote, job: dict[str, Any]) -> dict[str, Any]:
    """Run one job to its verdict (the fields of `verdict.Verdict`)."""
    if job["inputs"] is None:
        return _run(zygote, job)
    verdict = _run(zygote, job, suites=("base", "plus"))
    if not verdict["base_passed"] or verdict["outcome"] in ("pass", "infra_error", "timeout_cpu"):
        return verdict
    # EvalPlus gives the added inputs a process of their own: what the base inputs left behind must not decide.
    again = _run(zygote, job, suites=("plus",))
    return again | {"base_passed": True, "cpu_s": verdict["cpu_s"] + again["cpu_s"]}


def _run(zygote: Zygote, job: dict[str, Any], *, foresee: bool = True, suites: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run one job in one process; `suites` are those of EvalPlus' inputs."""
    channel = zygote.run(cpu_s=job["cpu_limit_s"], memory_bytes=job["memory_bytes"])
    session = Session(channel, time.monotonic() + job["wall_s"])
    try:
        outcome, detail = _check(session, job, foresee=foresee, suites=suites)
    finally:
        os.close(channel)
        usage = zygote.end(wait=session.broken is not None and session.broken[1].startswith("channel closed"))
    if session.out_of_step:
        return _run(zygote, job, foresee=False)
    if session.broken:
        outcome, detail = _explain(session.broken, usage, job)
    verdict = {"outcome": outcome, "detail": detail, "cpu_s": usage["cpu_s"], "in_process": job["inline"]}
    return verdict if job["inputs"] is None else verdict | {"base_passed": session.base_passed}


def _check(session: Session, job: dict[str, Any], *, foresee: bool, suites: tuple[str, ...]) -> tuple[str, str]:
    """Start the program, run the checks, and name what happened."""

    def expire(*_: object) -> None:
        session.broken = session.broken or ("timeout_wall", "the check ran past the deadline")
        raise CheckTimeoutError

    signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, session.deadline - time.monotonic() + 1.0))
    namespace: dict[str, Any] = {"__name__": "check", "__builtins__": builtins}
    try:
        first = {"program": job["program"], "names": job["entry_points"], "after": ""}
        ahead: tuple[bytes, ...] = ()
        if job["inputs"] is not None:
            from evalkit.sandbox.evalplus import check  # a fifth of a judge's start-up, and few jobs need it

            return check.check(session, job, first, suites=suites)
        if job["inline"]:
            first["after"] = f"\n{job['prelude']}\n{job['test']}"
        else:
            first["after"] = "\n" + stand_in(job["test"])
            ahead = prefetchable_calls(job["test"], tuple(job["entry_points"])) if foresee else ()
        session.value(session.ask(first, ahead=ahead))
        if job["inline"]:
            return "pass", ""
        random.seed(0)
        exec(_compiled(job["prelude"], "<prelude>"), namespace)
        namespace |= {name: proxy(session, name) for name in job["entry_points"]}
        exec(_compiled(job["test"], "<test>"), namespace)
        return ("pass", "") if session.broken is None else session.broken
    except CheckTimeoutError:
        return "timeout_wall", "the check ran past the deadline"
    except BaseException as error:
        return _failed(session, job, error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _failed(session: Session, job: dict[str, Any], error: BaseException) -> tuple[str, str]:
    """Name the failure that `error` is: the program's own exception, or a check that did not hold."""
    if error is session.raised:
        kind, own = error.__notes__
        text = f"{kind}: {error}" if str(error) else kind
        if kind == "MemoryError" and not own:
            return "oom", text
        if kind in ("PermissionError", "BlockingIOError") and not own:
            return "sandbox_denied", text
        if kind == "SystemExit":
            return "exited", text
        if kind == "AssertionError" and job["inline"]:
            return "wrong", text
        return "exception", text
    if isinstance(error, OSError | ImportError):  # raised on this side: a file of the judge's, never the program's
        return "infra_error", f"the judge failed: {type(error).__name__}: {error}"
    where = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == "<test>":
            where = job["test"].splitlines()[line - 1].strip()
    if isinstance(error, AssertionError):
        return "wrong", _short_text(f"{where}  # {session.last_call}")
    return "exception", _short_text(f"{type(error).__name__}: {error}, in: {where}  # {session.last_call}")


def _explain(broken: tuple[str, str], usage: dict[str, Any], job: dict[str, Any]) -> tuple[str, str]:
    """Say why the program stopped answering, from how its process ended."""
    outcome, detail = broken
    status, cpu_s = usage["status"], usage["cpu_s"]
    if usage["refused"]:
        return "infra_error", f"the program could not be started ({os.strerror(usage['refused'])})"
    # No program can send SIGKILL. The kernel sends it at the hard CPU limit, which is a second above the soft one.
    if status == -signal.SIGKILL and usage["by_itself"] and cpu_s < job["cpu_limit_s"] + 0.9:
        held = usage["memory_bytes"] / 1e6
        return (
            "infra_error",
            f"killed from outside, most likely by the kernel for lack of memory (it held {held:.0f} MB)",
        )
    # The kernel counts in ticks and whole seconds: within a tenth of the limit is at the limit.
    if status == -signal.SIGXCPU or cpu_s >= job["cpu_limit_s"] - 0.1:
        limit_s = job["cpu_limit_s"]
        return "timeout_cpu", f"used {max(cpu_s, limit_s):.1f} s of CPU, limit {limit_s} s"
    if outcome == "timeout_wall":
        return outcome, f"{detail} ({job['wall_s']:.0f} s by the clock, {cpu_s:.1f} s of CPU)"
    if status == -signal.SIGKILL and detail.startswith("channel closed"):
        return "exited", "closed its channel"
    if status < 0 and status != -signal.SIGKILL:
        return "killed", f"signal {signal.Signals(-status).name}"
    if status >= 0 and detail.startswith("channel closed"):
        return "exited", f"exit status {status} in place of an answer"
    return outcome, detail


def _short(value: Any) -> str:
    """Return a value's text, cut to a line; values here are plain, so their repr is the library's own."""
    try:
        return _short_text(repr(value), limit=120)
    except (ValueError, RecursionError, ArithmeticError):  # more than 4,300 digits; endless nesting; dates far away
        return f"<{type(value).__name__}>"


def _short_text(text: str, limit: int = 400) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def main(*, root: str, numpy_folder: str, memory_bytes: int) -> None:
    """Serve jobs from standard input until it closes, within `memory_bytes` of address space."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a test that prints must not write into the answers
    sys.stdout = io.StringIO()
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    warnings.simplefilter("ignore")  # of what a test makes of an answer
    os.environ.update(ONE_THREAD)  # should it come to need numpy
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # what is sent to a whole process group ends it without a traceback
    try:
        zygotes = {"": Zygote(root=root, numpy_folder="")}
    except (ChannelError, OSError) as error:
        answers.write(json.dumps({"failed": str(error)}) + "\n")
        return
    isolation.hide_memory()
    answers.write(json.dumps({"layers": zygotes[""].layers}) + "\n")
    for line in sys.stdin:
        job = json.loads(line) | {"numpy_folder": numpy_folder}
        folder = numpy_folder if "numpy" in job["program"] else ""  # importing it slows every fork threefold
        if folder in zygotes and zygotes[folder].process.poll() is not None:  # killed since the last job
            zygotes.pop(folder).close()
        try:
            if folder not in zygotes:
                if folder:
                    import_numpy(folder, more=("numpy.ma",))  # answers may hold its arrays
                zygotes[folder] = Zygote(root=root, numpy_folder=folder)
            verdict = judge(zygotes[folder], job)
        except (ChannelError, OSError, UnsupportedValueError) as error:  # the zygote, not the program
            verdict = {"outcome": "infra_error", "detail": f"{type(error).__name__}: {error}"}
            if (broken := zygotes.pop(folder, None)) is not None:
                broken.process.kill()
                broken.close()
        try:
            answers.write(json.dumps(verdict) + "\n")
        except BrokenPipeError:  # evalkit was ended; the rest of the jobs is nobody's
            os._exit(0)
        sys.stdout = io.StringIO()
    for zygote in zygotes.values():
        zygote.close()
