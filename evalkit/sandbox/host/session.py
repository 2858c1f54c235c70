"""The conversation with one guest, which every check and every execution of calls goes through.

A session forks a guest, sends requests, turns answers into plain values or exceptions, and remembers the first
failure. After a failure every further request fails, also if the caller catches the exception.
"""

from __future__ import annotations

import builtins
import os
import time
from collections import deque
from typing import Any

from evalkit.sandbox.host.guest_exit import GuestExit, Outcome, explain
from evalkit.sandbox.host.zygote_client import Zygote
from evalkit.sandbox.wire.messages import ChannelError, DeadlineError, Reader, pack, send
from evalkit.sandbox.wire.values import decode, encode

_OWN = "raised by the program itself"


class OutOfStepError(BaseException):
    """The test made another call than was prefetched. Not an Exception: a test must not catch it."""


class Session:
    """One guest: its channel, its deadline, and the first thing that went wrong."""

    def __init__(self, zygote: Zygote, *, cpu_limit_s: int, memory_bytes: int, wall_s: float, number: int = 0) -> None:
        """Fork a guest; call `end` afterwards in every case.

        Args:
            zygote: The process that forks.
            cpu_limit_s: CPU time of the guest, in seconds, which the kernel enforces.
            memory_bytes: Address space of the guest.
            wall_s: Time by the clock after which no answer is waited for, in seconds.
            number: The guest's number among those of the zygote that run at the same time.

        Raises:
            ChannelError, OSError: The zygote is unusable.
        """
        self._zygote, self._cpu_limit_s, self._wall_s, self._number = zygote, cpu_limit_s, wall_s, number
        self.channel = zygote.run(cpu_s=cpu_limit_s, memory_bytes=memory_bytes, number=number)
        self.reader = Reader(self.channel)
        self.deadline = time.monotonic() + wall_s
        self.failure: Outcome | None = None
        """The first failure of the conversation; set once, final."""
        self.raised: BaseException | None = None
        """The last exception that came from the program."""
        self.last_call = ""
        """The last call and its value, for people."""
        self.out_of_step = False
        """The test made another call than was prefetched; final, also if the test catches it."""
        self._prefetched: deque[bytes] = deque()  # messages that were sent early; their answers come in this order

    def end(self) -> GuestExit:
        """Kill the guest if it still runs and return how it ended.

        Raises:
            ChannelError: The zygote is unusable.
        """
        os.close(self.channel)
        closed = self.failure is not None and self.failure.detail.startswith("channel closed")
        return self._zygote.end(wait=closed, number=self._number)

    def extend(self, wall_s: float) -> None:
        """Wait for answers for another `wall_s` seconds by the clock."""
        self._wall_s, self.deadline = wall_s, time.monotonic() + wall_s

    def explain(self, ended: GuestExit) -> Outcome:
        """Return the outcome that `failure` and the end of the process stand for."""
        assert self.failure is not None
        return explain(self.failure, ended, cpu_limit_s=self._cpu_limit_s, wall_s=self._wall_s)

    def ask(self, request: dict[str, Any], *, prefetch: tuple[bytes, ...] = ()) -> Any:
        """Send one request, unless it was prefetched, and return the message that answers it.

        Args:
            request: The request.
            prefetch: Messages of the next requests, which are sent at once with this one.

        Raises:
            ChannelError, DeadlineError: There is no answer. The session has failed from here on.
            OutOfStepError: Another request was prefetched.
        """
        if self.failure:
            raise ChannelError(self.failure.detail)
        if self.out_of_step:
            raise OutOfStepError
        message = pack(request)
        try:
            if not self._prefetched:
                send(self.channel, message + b"".join(prefetch), deadline=self.deadline)
                self._prefetched.extend(prefetch)
            elif self._prefetched.popleft() != message:
                self.out_of_step = True
                raise OutOfStepError
            return self.reader.receive(self.deadline)
        except DeadlineError:
            self.failure = Outcome("timeout_wall", "no answer in time")
            raise
        except ChannelError as error:
            self.failure = Outcome("exited", str(error))
            raise

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the program's function `name` and return its value.

        Raises:
            Exception: The program's own, as `value` rebuilds it.
            ChannelError, DeadlineError: The session has failed.
            OutOfStepError: Another call was prefetched.
        """
        request = {
            "call": name,
            "args": [encode(value) for value in args],
            "kwargs": {key: encode(value) for key, value in kwargs.items()},
        }
        self.last_call = f"{name}({', '.join(short_repr(value) for value in args)})"
        value = self.value(self.ask(request))
        self.last_call += f" gave {short_repr(value)}"
        return value

    def value(self, answer: Any) -> Any:
        """Return the value in an answer.

        Raises:
            Exception: The one that the answer names; `raised` holds it too.
            ChannelError: The answer is neither a value nor an exception. The session has failed.
        """
        if isinstance(answer, dict) and "ok" in answer:
            try:
                return decode(answer["ok"])
            except (ValueError, RecursionError) as error:
                self.failure = Outcome("exited", f"the answer is not a value: {error}")
                raise ChannelError(str(error)) from None
        try:
            kind, text, own = answer["error"]
            error_class = getattr(builtins, str(kind), None)
            if not (isinstance(error_class, type) and issubclass(error_class, Exception)):
                error_class = RuntimeError
            try:
                self.raised = error_class(str(text))
            except TypeError:  # UnicodeDecodeError and a few others take more than a text
                self.raised = ValueError(str(text))
            self.raised.__notes__ = [str(kind), _OWN if own is True else ""]
        except (KeyError, TypeError, ValueError):
            self.failure = Outcome("exited", "the answer is neither a value nor an error")
            raise ChannelError("not an answer") from None
        raise self.raised


def exception_outcome(error: BaseException) -> Outcome:
    """Return the outcome of an exception that `Session.value` raised: the program's own, or a refusal."""
    kind, own = error.__notes__
    text = f"{kind}: {error}" if str(error) else kind
    if kind == "MemoryError" and not own:
        return Outcome("oom", text)
    if kind in ("PermissionError", "BlockingIOError") and not own:
        return Outcome("sandbox_denied", text)
    return Outcome("exited" if kind == "SystemExit" else "exception", text)


def short_repr(value: Any, limit: int = 120) -> str:
    """Return the repr of a plain value, cut to `limit` characters. Plain values have no repr of the program's."""
    try:
        return short_text(repr(value), limit)
    except (ValueError, RecursionError, ArithmeticError):  # over 4,300 digits; endless nesting; dates out of range
        return f"<{type(value).__name__}>"


def short_text(text: str, limit: int = 400) -> str:
    """Return `text`, cut to `limit` characters."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
