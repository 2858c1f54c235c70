"""Limits of CPU time: used up, asleep, over all answers. This process stands for the guest."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from evalkit.sandbox.host.cpu_meter import CpuLimitError, CpuMeter
from evalkit.sandbox.wire.messages import ChannelError, DeadlineError, Reader, frame


class Conversation:
    """A meter on one end of a pair of sockets, and the other end."""

    def __init__(self) -> None:
        ours, self.guest = socket.socketpair()
        ours.setblocking(False)
        self._ours = ours
        self.session = SimpleNamespace(
            channel=ours.fileno(), reader=Reader(ours.fileno()), deadline=time.monotonic() + 20.0, failure=None
        )
        self.meter = CpuMeter(self.session, slack_s=0.01)  # type: ignore[arg-type]
        self.meter._clock = (~os.getpid() << 3) | 2
        self.meter.begin(10.0)

    def close(self) -> None:
        self._ours.close()
        self.guest.close()


@pytest.fixture
def conversation() -> Iterator[Conversation]:
    pair = Conversation()
    yield pair
    pair.close()


def burn(seconds: float, then: socket.socket | None = None) -> threading.Thread:
    """Use CPU time in a thread, then send an answer."""

    def work() -> None:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
        if then is not None:
            then.sendall(frame(b"answer"))

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_an_answer_within_its_limit_adds_to_the_total(conversation: Conversation):
    thread = burn(0.1, conversation.guest)
    assert conversation.meter.receive(limit_s=1.0, what="f(1)") == b"answer"
    thread.join()
    assert 0.09 < conversation.meter.spent_s < 0.5


def test_an_answer_beyond_its_limit_is_a_cpu_timeout(conversation: Conversation):
    thread = burn(0.5)
    with pytest.raises(CpuLimitError, match=r"f\(1\) used 0\.\d\d s of CPU \(limit 0\.10 s\)") as error:
        conversation.meter.receive(limit_s=0.1, what="f(1)")
    thread.join()
    assert error.value.outcome.outcome == "timeout_cpu"


def test_a_guest_that_sleeps_is_a_timeout_by_the_clock(conversation: Conversation):
    with pytest.raises(CpuLimitError, match=r"f\(1\) slept for \d\.\d\d s \(limit 0\.10 s\)") as error:
        conversation.meter.receive(limit_s=0.1, what="f(1)")
    assert error.value.outcome.outcome == "timeout_wall"


@pytest.mark.slow
def test_all_answers_together_have_a_limit(conversation: Conversation):
    conversation.meter.begin(0.2)
    thread = burn(0.15, conversation.guest)
    conversation.meter.receive(limit_s=1.0, what="f(1)")
    thread.join()
    thread = burn(0.5)
    with pytest.raises(CpuLimitError, match=r"f\(2\), with all before it, used 0\.\d\d s of CPU \(limit 0\.20 s\)"):
        conversation.meter.receive(limit_s=1.0, what="f(2)")
    thread.join()


def test_the_deadline_and_a_closed_channel_are_failures_of_the_session(conversation: Conversation):
    conversation.session.deadline = time.monotonic() + 0.05
    with pytest.raises(DeadlineError):
        conversation.meter.receive(limit_s=5.0, what="f(1)")
    assert conversation.session.failure == ("timeout_wall", "no answer in time")
    conversation.guest.close()
    conversation.session.deadline = time.monotonic() + 5.0
    with pytest.raises(ChannelError):
        conversation.meter.receive(limit_s=5.0, what="f(2)")
    assert conversation.session.failure == ("exited", "channel closed")
