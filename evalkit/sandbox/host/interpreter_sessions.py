"""The host's half of interpreter sessions: guests that stay alive between cells, and their limits.

A guest runs one cell at a time (`guest/cells.py`). A cell beyond its limits ends the guest, and so does one that leaves
threads; the session's next cell gets a new guest, and its result says so.
"""

from __future__ import annotations

import math
import os
import time
from collections import OrderedDict
from typing import Any

from evalkit.sandbox.host.cpu_meter import CpuLimitError, CpuMeter
from evalkit.sandbox.host.guest_exit import GuestExit, Outcome
from evalkit.sandbox.host.session import Session, exception_outcome
from evalkit.sandbox.host.zygote_client import Zygote
from evalkit.sandbox.wire.messages import ChannelError, DeadlineError, pack

MOST_GUESTS = 40
"""Guests of one checker that are alive at the same time: its zygote may open 64 files, one for each guest."""

_THREADS_END_S = 0.1
"""Time that threads have to end after their cell, in seconds."""
_SLACK_S = 0.02
"""CPU time of an answer beside the cell: to encode and to send it."""


class _LiveGuest:
    """A guest of one session."""

    def __init__(self, zygote: Zygote, number: int, request: dict[str, Any]) -> None:
        self._total_s = request["session_cpu_s"]
        self._session = Session(
            zygote,
            cpu_limit_s=math.ceil(self._total_s) + 1,
            memory_bytes=request["memory_bytes"],
            wall_s=request["wall_s"],
            number=number,
        )
        self._meter = CpuMeter(self._session, slack_s=_SLACK_S)
        self._started = False
        self.is_alive = True

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a cell; return the fields of its `interpreter.CellResult`. A failure ends the guest."""
        session, failure, spent_s = self._session, None, self._meter.spent_s
        try:
            result = self._answer(request)
            if self._has_threads():
                self.end()
            return result | {"cpu_s": self._meter.spent_s - spent_s}
        except CpuLimitError as error:
            failure = error.outcome
        except (ChannelError, DeadlineError):
            pass  # the session holds the failure
        ended = self.end()
        if session.failure:
            failure = session.explain(ended)
        assert failure is not None
        return {
            "outcome": failure.outcome,
            "detail": failure.detail,
            "output": "",
            "cpu_s": max(0.0, ended.cpu_s - spent_s),
        }

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        session, meter, most = self._session, self._meter, request["characters"]
        session.extend(request["wall_s"])
        if not self._started:
            meter.begin(self._total_s)
            session.value(meter.start({"program": "", "after": "", "names": []}))
            self._started = True
        meter.send(pack({"cell": request["cell"], "characters": most}))
        answer = meter.message(meter.receive(limit_s=request["call_cpu_s"], what="the code"))
        output = answer.get("output") if isinstance(answer, dict) else None
        if not isinstance(output, str):
            session.failure = Outcome("exited", "the answer is not that of a cell")
            raise ChannelError(session.failure.detail)
        outcome, detail = "ran", ""
        if "error" in answer:
            try:
                session.value({"error": answer["error"]})
            except Exception as error:
                if error is not session.raised:
                    raise
                outcome, detail = exception_outcome(error)
        # The guest keeps to the limits of length only if the code leaves it intact.
        return {"outcome": outcome, "detail": detail, "output": output[: 3 * most + 200]}

    def _has_threads(self) -> bool:
        """Return whether the guest has more than one thread; wait, since a thread ends a bit after it is joined."""
        deadline = time.monotonic() + _THREADS_END_S
        while self._num_threads() > 1:
            if time.monotonic() > deadline:
                return True
            time.sleep(0.002)
        return False

    def _num_threads(self) -> int:
        """Return the guest's number of threads by the kernel's count; 1 where it does not tell."""
        try:
            with open(f"/proc/{self._meter.process}/status", "rb") as file:
                return next((int(line.split()[1]) for line in file if line.startswith(b"Threads:")), 1)
        except OSError:
            return 1

    def end(self) -> GuestExit:
        """Kill the guest and return how it ended.

        Raises:
            ChannelError: The zygote is unusable.
        """
        self.is_alive = False
        return self._session.end()

    def abandon(self) -> None:
        """Close the channel of a guest that nobody can end."""
        self.is_alive = False
        os.close(self._session.channel)


class InterpreterSessions:
    """The sessions of one checker."""

    def __init__(self) -> None:
        self._guests: OrderedDict[int, _LiveGuest] = OrderedDict()  # by session, the one used last at the end

    def run(self, zygote: Zygote, request: dict[str, Any]) -> dict[str, Any]:
        """Run a cell of a session, in its guest or in a new one.

        Args:
            zygote: The process that forks guests.
            request: "cell" (None to run none) and the session's number, "session"; "ended": numbers of sessions that
                were closed; the fields of `interpreter.SessionLimits`.

        Returns:
            The fields of `interpreter.CellResult`. "is_new": the guest had run no cell before. "is_alive": the next
            cell finds the state that this one left.

        Raises:
            ChannelError, OSError: The zygote is unusable.
        """
        for number in request["ended"]:
            if (guest := self._guests.pop(number, None)) is not None:
                guest.end()
        if request["cell"] is None:
            return {"outcome": "ran"}
        number = request["session"]
        guest = self._guests.pop(number, None)
        is_new = guest is None
        if guest is None:
            if len(self._guests) >= MOST_GUESTS:
                self._guests.popitem(last=False)[1].end()
            guest = _LiveGuest(zygote, number, request)
        result = guest.run(request)
        if guest.is_alive:
            self._guests[number] = guest
        return result | {"is_new": is_new, "is_alive": guest.is_alive}

    def forget(self) -> None:
        """Forget all sessions: their zygote is unusable, and its guests die with it."""
        while self._guests:
            self._guests.popitem()[1].abandon()
