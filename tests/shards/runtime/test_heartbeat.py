"""Tests of progress lines, with a clock that the tests set."""

from __future__ import annotations

import io
import os
import sys
import time

import pytest

from shards.runtime.heartbeat import Heartbeat


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Recorded(io.StringIO):
    """A stream that notes when something was written."""

    def __init__(self, clock: Clock, *, terminal: bool = False) -> None:
        super().__init__()
        self.clock, self.terminal = clock, terminal
        self.times: list[float] = []

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.times.append(self.clock())
        return super().write(text)


def beat(clock: Clock, *, terminal: bool = False) -> tuple[Heartbeat, Recorded]:
    out = Recorded(clock, terminal=terminal)
    return Heartbeat(out=out, clock=clock, width=lambda: 30), out


def test_a_log_hears_something_every_fifteen_seconds_however_long_the_work_takes():
    clock = Clock()
    heartbeat, out = beat(clock)
    heartbeat("loading the teacher")
    for _ in range(200):
        clock.now += 1.3  # ticks that come late, as on a busy machine
        heartbeat.tick()
    gaps = [later - earlier for earlier, later in zip(out.times, out.times[1:], strict=False)]
    assert min(gaps) >= 10.0
    assert max(gaps) < 15.0
    assert out.getvalue().splitlines()[:2] == ["loading the teacher", "  10 s"]


def test_a_line_that_was_said_counts_and_starts_the_seconds_again():
    clock = Clock()
    heartbeat, out = beat(clock)
    heartbeat("a")
    clock.now = 9.0
    heartbeat("b")
    clock.now = 11.0
    heartbeat.tick()
    assert out.getvalue() == "a\nb\n"
    clock.now = 19.0
    heartbeat.tick()
    assert out.getvalue() == "a\nb\n  10 s\n"


def test_a_status_is_printed_in_place_of_seconds():
    clock = Clock()
    heartbeat, out = beat(clock)
    done = [0]
    with heartbeat.counting(lambda: f"{done[0]} of 9"):
        done[0], clock.now = 4, 10.0
        heartbeat.tick()
    clock.now = 20.0
    heartbeat.tick()
    assert out.getvalue() == "4 of 9\nstarting 10 s\n"


def test_a_log_has_no_control_characters():
    clock = Clock()
    heartbeat, out = beat(clock)
    with heartbeat:
        heartbeat("x")
        clock.now = 30.0
        heartbeat.tick()
        with heartbeat.paused():
            heartbeat.tick()
    assert out.getvalue().replace("\n", "").isprintable()


def test_a_terminal_has_one_line_that_is_rewritten_and_vanishes():
    clock = Clock()
    heartbeat, out = beat(clock, terminal=True)
    heartbeat("loading")
    clock.now = 1.0
    heartbeat.tick()
    with heartbeat.counting(lambda: "a status that is longer than the terminal is wide"):
        heartbeat.tick()
    heartbeat("loaded")
    clear = "\r\x1b[K"
    assert out.getvalue() == f"loading\n{clear}  1 s{clear}a status that is longer than {clear}loaded\n"


def test_nothing_is_printed_while_something_else_draws():
    clock = Clock()
    heartbeat, out = beat(clock, terminal=True)
    with heartbeat.paused():
        clock.now = 60.0
        heartbeat.tick()
    assert out.getvalue() == ""
    heartbeat.tick()
    assert out.getvalue().endswith("starting 0 s")


@pytest.mark.slow
def test_the_thread_speaks_by_itself_and_ends_with_the_block(capfd: pytest.CaptureFixture[str]):
    with Heartbeat(every_s=0.5) as heartbeat:
        heartbeat("work")
        deadline = time.monotonic() + 30.0
        text = ""
        while " s\n" not in text and time.monotonic() < deadline:
            time.sleep(0.1)
            text += capfd.readouterr().err
    assert text.startswith("work\n")
    assert " s\n" in text
    assert not heartbeat._thread.is_alive()


def test_lines_arrive_while_the_error_stream_is_redirected(capfd: pytest.CaptureFixture[str]):
    with Heartbeat() as heartbeat:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            heartbeat("still heard")
            print("not heard", file=sys.__stderr__, flush=True)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
    assert capfd.readouterr().err == "still heard\n"


def test_a_reader_that_has_gone_does_not_end_the_work():
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    Heartbeat(out=Gone())("nobody hears")
