"""Limits of CPU time for the answers of a guest.

The kernel keeps a clock of CPU time for each process. The host reads the guest's clock, which the guest cannot set, so
other work on the machine does not count.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from typing import Any, NamedTuple

from evalkit.sandbox.host.guest_exit import Outcome
from evalkit.sandbox.host.session import Session
from evalkit.sandbox.wire.messages import ChannelError, DeadlineError, pack, send, wait_ready

_LEAST_WAIT_S = 0.02
"""Least time between two looks at the clock."""
_ASLEEP_SHARE = 0.01
"""Share of a processor below which a guest sleeps. One that waits for a busy processor gets more."""
_ASLEEP_S = 0.5
"""Time by the clock beyond the limit after which a sleeping guest is stopped."""
_CREDENTIALS = struct.Struct("=iII")  # process, user, group
_SO_PASSCRED = getattr(socket, "SO_PASSCRED", 16)


class CpuLimitError(Exception):
    """An answer, or all answers together, took more time than allowed; `outcome` names the limit."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


class _Limit(NamedTuple):
    """CPU time for one answer."""

    what: object
    """The work that the time is for; its text is shown to people."""
    named_s: float
    """The limit as shown to people."""
    most_s: float
    """The limit with its slack."""


class CpuMeter:
    """CPU time of one session's guest, within limits for each answer and for all."""

    def __init__(self, session: Session, *, slack_s: float, total_slack_s: float = 0.0) -> None:
        """Measure the guest of `session`.

        Args:
            session: The session.
            slack_s: CPU seconds beyond the limit of one answer that are not the call's own.
            total_slack_s: CPU seconds beyond the limit of all answers together.
        """
        self.session = session
        self._slack_s, self._total_slack_s = slack_s, total_slack_s
        self._clock: int | None = None
        self.process = 0
        """The guest's process id here; 0 before `start`, and where the kernel does not tell."""
        self._total_s = 0.0
        self.spent_s = 0.0
        """CPU seconds since `begin`."""

    def begin(self, total_s: float) -> None:
        """Set the limit of all answers from here on, in CPU seconds."""
        self._total_s, self.spent_s = total_s + self._total_slack_s, 0.0

    def start(self, program: dict[str, Any]) -> Any:
        """Send the program itself and return the message that answers it when its own statements ended.

        Raises:
            CpuLimitError: It took longer than the limit of all answers.
            ChannelError, DeadlineError: The session has failed.
        """
        channel, deadline = self.session.channel, self.session.deadline
        with socket.socket(fileno=os.dup(channel)) as view:
            view.setsockopt(socket.SOL_SOCKET, _SO_PASSCRED, 1)
            try:
                send(channel, pack(program | {"hello": True}), deadline=deadline)
                wait_ready(channel, write=False, deadline=deadline)
                _, parts, _, _ = view.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size), socket.MSG_PEEK)
            except (OSError, DeadlineError):
                parts = []
            view.setsockopt(socket.SOL_SOCKET, _SO_PASSCRED, 0)
        # The kernel gives the sender's process id in this process' namespace, not in the guest's own.
        process = _CREDENTIALS.unpack(parts[0][2])[0] if parts else 0
        self.process = process
        self._clock = (~process << 3) | 2 if process > 0 else None  # as clock_getcpuclockid(3) makes it
        self.receive(limit_s=self._total_s, what="starting the program")
        return self.message(self.receive(limit_s=self._total_s, what="running the program's own statements"))

    def send(self, message: bytes) -> None:
        """Send a message.

        Raises:
            ChannelError, DeadlineError: The session has failed.
        """
        try:
            send(self.session.channel, message, deadline=self.session.deadline)
        except (ChannelError, DeadlineError) as error:
            self.session.failure = Outcome("exited", str(error))
            raise

    def receive(self, *, limit_s: float, what: object) -> bytes:
        """Return the body of the next message, which may take `limit_s` CPU seconds.

        Raises:
            CpuLimitError: It took longer.
            ChannelError, DeadlineError: The session has failed.
        """
        left_s = self._total_s - self.spent_s
        limit = _Limit(what, limit_s, limit_s + self._slack_s) if limit_s + self._slack_s < left_s else None
        limit = limit or _Limit(f"{what}, with all before it,", self._total_s - self._total_slack_s, left_s)
        started, before = time.monotonic(), self._cpu_s()
        wait_s = limit.most_s
        session = self.session
        while True:
            deadline = min(session.deadline, time.monotonic() + max(_LEAST_WAIT_S, wait_s))
            try:
                body = session.reader.receive_bytes(deadline)
            except DeadlineError:
                wait_s = limit.most_s - self._used_s(started, before, limit)
                if time.monotonic() >= session.deadline:
                    session.failure = Outcome("timeout_wall", "no answer in time")
                    raise
            except ChannelError as error:
                session.failure = Outcome("exited", str(error))
                raise
            else:
                self.spent_s += self._used_s(started, before, limit)
                return body

    def message(self, body: bytes) -> Any:
        """Return the JSON in a message's body.

        Raises:
            ChannelError: It is not JSON. The session has failed.
        """
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            self.session.failure = Outcome("exited", f"not a message: {type(error).__name__}")
            raise ChannelError("not a message") from None

    def _cpu_s(self) -> float | None:
        """Return the CPU seconds that the guest has used; None where the kernel does not tell."""
        try:
            return time.clock_gettime(self._clock) if self._clock is not None else None
        except OSError:
            return None

    def _used_s(self, started: float, before: float | None, limit: _Limit) -> float:
        """Return the CPU seconds used since `before`.

        Raises:
            CpuLimitError: They are more than the limit, or the guest sleeps.
        """
        elapsed_s, now = time.monotonic() - started, self._cpu_s()
        if before is None or now is None:
            if elapsed_s > 3.0 * limit.most_s + 3.0:
                detail = f"{limit.what} took {elapsed_s:.1f} s by the clock; CPU time is not known here"
                raise CpuLimitError(Outcome("timeout_wall", detail))
            return min(elapsed_s, limit.most_s)
        used_s = now - before
        if used_s > limit.most_s:
            detail = f"{limit.what} used {used_s:.2f} s of CPU (limit {limit.named_s:.2f} s)"
            raise CpuLimitError(Outcome("timeout_cpu", detail))
        if elapsed_s > limit.most_s + _ASLEEP_S and used_s < _ASLEEP_SHARE * elapsed_s:
            detail = f"{limit.what} slept for {elapsed_s:.2f} s (limit {limit.named_s:.2f} s)"
            raise CpuLimitError(Outcome("timeout_wall", detail))
        return used_s
