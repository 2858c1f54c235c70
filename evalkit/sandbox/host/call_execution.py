"""The host's half of `execute_calls`: have a guest evaluate calls, each within its own limit.

The guest answers every call with a message of its own (`guest/calls.py`). When a call hangs or ends the guest, the
answers before it are kept, and a new guest goes on with the call after it.
"""

from __future__ import annotations

import json
import math
import time
from typing import Any

from evalkit.sandbox.host.cpu_meter import CpuLimitError, CpuMeter
from evalkit.sandbox.host.guest_exit import Outcome
from evalkit.sandbox.host.session import Session, exception_outcome, short_repr
from evalkit.sandbox.host.zygote_client import Zygote
from evalkit.sandbox.verdict import RETRIED
from evalkit.sandbox.wire.canonical import value_digest
from evalkit.sandbox.wire.messages import ChannelError, DeadlineError, pack
from evalkit.sandbox.wire.values import decode

_SLACK_S = 0.02
"""CPU time of an answer beside the call: to encode and to send it."""
_TIMEOUTS = ("timeout_cpu", "timeout_wall")
_RAN: dict[str, Any] = {"outcome": "ran", "text": ""}
_TEXT_BYTES = 1 << 16
"""Longest answer whose value is rebuilt to show its start."""


class _GuestRun:
    """One guest and the calls that it answers."""

    def __init__(
        self, zygote: Zygote, job: dict[str, Any], *, first_call_s: float, total_s: float, wall_s: float
    ) -> None:
        self._job, self._first_call_s, self._total_s = job, first_call_s, total_s
        self._session = Session(
            zygote, cpu_limit_s=math.ceil(total_s) + 1, memory_bytes=job["memory_bytes"], wall_s=wall_s
        )
        self._meter = CpuMeter(self._session, slack_s=_SLACK_S)
        self.started = False
        """The program's own statements ended."""
        self.results: list[dict[str, Any]] = []
        """The answers so far, as fields of `execute.CallResult`."""
        self.failure: dict[str, Any] | None = None
        """Why the guest gives no more answers, as fields of `execute.CallResult`."""
        self.cpu_s = 0.0
        self.doubtful = False
        """The failure may be the machine's: no answer before the deadline, or no working guest."""

    def run(self, calls: list[str]) -> None:
        """Start the program and have it evaluate `calls`; end the guest in every case."""
        session = self._session
        failure, exception = None, ""
        try:
            self._answer(calls)
        except CpuLimitError as error:
            failure = error.outcome
        except (ChannelError, DeadlineError):
            pass  # the session holds the failure
        except BaseException as error:
            if error is not session.raised:
                raise
            failure, exception = exception_outcome(error), error.__notes__[0]
        finally:
            ended = session.end()
            self.cpu_s = ended.cpu_s
        if session.failure:
            failure = session.explain(ended)
            self.doubtful = failure.outcome in RETRIED
        if failure is not None:
            cpu_s = max(0.0, ended.cpu_s - self._meter.spent_s)
            self.failure = {"outcome": failure.outcome, "text": failure.detail, "exception": exception, "cpu_s": cpu_s}

    def _answer(self, calls: list[str]) -> None:
        meter, job = self._meter, self._job
        meter.begin(self._total_s)
        self._session.value(meter.start({"program": job["program"], "after": "", "names": []}))
        self.started = True
        # Fresh state runs the program's own statements again before each call: their time is not the call's.
        own_s = meter.spent_s if job["fresh"] else 0.0
        meter.send(pack({"evaluate": calls, "fresh": job["fresh"]}))
        for call in calls:
            call_s = job["call_cpu_s"] if self.results else self._first_call_s
            body = meter.receive(limit_s=call_s + own_s, what=call[:100])
            self.results.append(self._result(body))

    def _result(self, body: bytes) -> dict[str, Any]:
        """Return the fields of a result.

        Raises:
            ChannelError: The message is not an answer. The session has failed.
        """
        answer = self._meter.message(body)
        if not isinstance(answer, dict):
            answer = {}
        cpu_s = answer.get("cpu_s")
        cpu_s = min(max(0.0, cpu_s), self._total_s) if isinstance(cpu_s, int | float) else 0.0
        if "ok" not in answer:
            try:
                self._session.value(answer)
            except Exception as error:
                if error is not self._session.raised:
                    raise
                outcome, text = exception_outcome(error)
                return {"outcome": outcome, "exception": error.__notes__[0], "text": text, "cpu_s": cpu_s}
        form = answer["ok"]
        try:
            digest = value_digest(form)
            short = len(body) <= _TEXT_BYTES
            text = short_repr(decode(form)) if short else f"a value of {len(body):,} bytes"
        except (ValueError, RecursionError) as error:
            self._session.failure = Outcome("exited", f"the answer is not a value: {error}")
            raise ChannelError(str(error)) from None
        result = {"outcome": "value", "digest": digest, "text": text, "cpu_s": cpu_s}
        if len(body) <= self._job["value_bytes"]:
            result["form"] = form
        return result


def execute(zygote: Zygote, job: dict[str, Any]) -> dict[str, Any]:
    """Evaluate calls of one program.

    Args:
        zygote: The process that forks guests.
        job: The fields of `execute.ProgramCalls` and `execute.CallLimits`, with "fresh", "guest_calls" (most calls of
            one guest) and "wall_s".

    Returns:
        The fields of `execute.ProgramResult`, with one result for each call, and "doubtful": the machine may be the
        cause of a failure.

    Raises:
        ChannelError, OSError: The zygote is unusable.
    """
    calls, deadline = job["calls"], time.monotonic() + job["wall_s"]
    results: list[dict[str, Any]] = []
    cpu_s, doubtful, program, rest, timeouts = 0.0, False, _RAN, None, 0
    while rest is None and len(results) < max(1, len(calls)):
        left_s, wall_s = job["program_cpu_s"] - cpu_s, deadline - time.monotonic()
        if left_s <= 0:
            text = f"not run: all calls together used {job['program_cpu_s']:.1f} s of CPU"
            rest = {"outcome": "timeout_cpu", "text": text}
            break
        if wall_s <= 0:
            text = f"not run: all calls together took {job['wall_s']:.1f} s by the clock"
            rest, doubtful = {"outcome": "timeout_wall", "text": text}, True
            break
        if (most := job["most_timeouts"]) is not None and timeouts >= most:
            rest = {"outcome": "timeout_cpu", "text": f"not run: {timeouts} calls before it used up their time"}
            break
        first_call_s = (job["after_timeout_cpu_s"] if timeouts else None) or job["call_cpu_s"]
        guest = _GuestRun(zygote, job, first_call_s=first_call_s, total_s=left_s, wall_s=wall_s)
        guest.run(calls[len(results) : len(results) + job["guest_calls"]])
        cpu_s += guest.cpu_s
        doubtful |= guest.doubtful
        timeouts = 0 if guest.results else timeouts
        results += guest.results
        if guest.failure is not None and not guest.started:
            rest = program = guest.failure
        elif guest.failure is not None and guest.failure["outcome"] == "infra_error":
            rest = guest.failure
        elif guest.failure is not None:
            results.append(guest.failure)
            timeouts = timeouts + 1 if guest.failure["outcome"] in _TIMEOUTS else 0
        elif not calls:
            break
    if rest is not None:
        results += [rest | {"cpu_s": 0.0}] * (len(calls) - len(results))
    answer = {"outcome": program["outcome"], "detail": program["text"], "cpu_s": cpu_s}
    return answer | {"calls": results, "doubtful": doubtful}


def wants_numpy(job: dict[str, Any]) -> bool:
    """Say whether the program or a call names numpy."""
    return "numpy" in job["program"] or "numpy" in json.dumps(job["calls"])
