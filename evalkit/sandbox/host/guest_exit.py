"""Outcomes of guests that stopped answering, from how their process ended."""

from __future__ import annotations

import os
import signal
from typing import NamedTuple


class GuestExit(NamedTuple):
    """How a guest's process ended, as its zygote reports it (`zygote.ENDED`)."""

    status: int
    """Exit status, or the negative number of the signal."""
    cpu_s: float
    by_itself: bool
    """It ended before the zygote killed it."""
    memory_bytes: int
    """Most resident memory that it held."""
    refused: int
    """0, or the errno of a fork or resource limit that the machine refused before the program began."""
    starved: bool
    """It lost its processor to others more often than it gave it up: it was runnable, not asleep."""


class Outcome(NamedTuple):
    """One of `verdict.OUTCOMES`, with a line for people."""

    outcome: str
    detail: str


PASS = Outcome("pass", "")


def explain(failure: Outcome, ended: GuestExit, *, cpu_limit_s: int, wall_s: float) -> Outcome:
    """Return the outcome of a guest that stopped answering.

    Args:
        failure: What the host noticed first.
        ended: How the process ended.
        cpu_limit_s: The guest's limit of CPU time, in seconds.
        wall_s: The time that it had by the clock, in seconds.
    """
    outcome, detail = failure
    status, cpu_s = ended.status, ended.cpu_s
    if ended.refused:
        return Outcome("infra_error", f"the program could not be started ({os.strerror(ended.refused)})")
    # The kernel enforces its limits in ticks and whole seconds: within a tenth of the limit is at the limit.
    out_of_cpu = cpu_s >= cpu_limit_s - 0.1
    # No program can send SIGKILL. The kernel sends it at the hard CPU limit, which is a second above the soft one, to a
    # program that ignores SIGXCPU. It counts whole ticks for that: up to a tenth more than `cpu_s` on a busy machine.
    if status == -signal.SIGKILL and ended.by_itself and not out_of_cpu:
        held = ended.memory_bytes / 1e6
        return Outcome(
            "infra_error",
            f"killed from outside, most likely by the kernel for lack of memory (it held {held:.0f} MB)",
        )
    if status == -signal.SIGXCPU or out_of_cpu:
        return Outcome("timeout_cpu", f"used {max(cpu_s, cpu_limit_s):.1f} s of CPU, limit {cpu_limit_s} s")
    if outcome == "timeout_wall":
        return Outcome(outcome, f"{detail} ({wall_s:.0f} s by the clock, {cpu_s:.1f} s of CPU)")
    if status == -signal.SIGKILL and detail.startswith("channel closed"):
        return Outcome("exited", "closed its channel")
    if status < 0 and status != -signal.SIGKILL:
        return Outcome("killed", f"signal {signal.Signals(-status).name}")
    if status >= 0 and detail.startswith("channel closed"):
        return Outcome("exited", f"exit status {status} in place of an answer")
    return failure
