"""Outcomes of guests that stopped answering, by how their process ended."""

from __future__ import annotations

import signal

import pytest

from evalkit.sandbox.host.guest_exit import GuestExit, Outcome, explain

CLOSED = Outcome("exited", "channel closed")
LATE = Outcome("timeout_wall", "no answer in time")
FORGED = Outcome("exited", "the answer is not a value: x")


@pytest.mark.parametrize(
    ("failure", "status", "cpu_s", "by_itself", "outcome"),
    [
        (CLOSED, 0, 0.1, True, "exited"),
        (CLOSED, 7, 0.1, True, "exited"),
        (CLOSED, -signal.SIGSEGV, 0.1, True, "killed"),
        (CLOSED, -signal.SIGKILL, 0.1, True, "infra_error"),
        (CLOSED, -signal.SIGKILL, 0.1, False, "exited"),  # it closed its channel, and the zygote killed it
        (CLOSED, -signal.SIGXCPU, 0.8, True, "timeout_cpu"),
        (CLOSED, -signal.SIGKILL, 1.86, True, "timeout_cpu"),  # at the hard limit, by the kernel's count of ticks
        (CLOSED, -signal.SIGKILL, 2.0, True, "timeout_cpu"),
        (LATE, -signal.SIGKILL, 0.2, False, "timeout_wall"),
        (LATE, -signal.SIGKILL, 0.95, False, "timeout_cpu"),
        (FORGED, -signal.SIGKILL, 0.1, False, "exited"),
    ],
)
def test_the_end_of_the_process_decides(failure: Outcome, status: int, cpu_s: float, by_itself: bool, outcome: str):
    ended = GuestExit(status, cpu_s, by_itself, 13_000_000, 0, False)
    assert explain(failure, ended, cpu_limit_s=1, wall_s=6.0).outcome == outcome


def test_a_refused_start_is_the_machines_failure():
    ended = GuestExit(1, 0.0, True, 0, 11, False)
    outcome = explain(CLOSED, ended, cpu_limit_s=1, wall_s=6.0)
    assert outcome == ("infra_error", "the program could not be started (Resource temporarily unavailable)")
