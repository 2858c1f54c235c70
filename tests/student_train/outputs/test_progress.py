"""Tests of what training and evaluation print, under a clock that the tests set."""

from __future__ import annotations

import io

from shards.runtime.heartbeat import Heartbeat
from student_train.outputs.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_step_that_takes_a_minute_is_heard_of_meanwhile() -> None:
    clock, out = Clock(), io.StringIO()
    beat = Heartbeat(out=out, clock=clock)
    with Progress("training", 2, log=beat, clock=clock) as bar:
        for _ in range(2):
            for _ in range(60):
                clock.now += 1.0
                beat.tick()
            bar.advance(steps=1, tokens=600, note="loss 2.5000")
        clock.now += 10.0  # a checkpoint is written
        beat.tick()
    lines = out.getvalue().splitlines()
    assert lines[:3] == [f"training: 0 of 2 steps, {s} s" for s in (10, 20, 30)]
    assert lines[6] == "training: 1 of 2 steps, 10 tokens/s, 50 s left, loss 2.5000"
    assert lines[-1] == "training: 2 of 2 steps in 120 s, 10 tokens/s, loss 2.5000"
    assert lines[-2].endswith(" s")
    assert len(lines) == 6 + 6 + 1 + 1


def test_quick_steps_do_not_flood_a_log() -> None:
    clock, out = Clock(), io.StringIO()
    beat = Heartbeat(out=out, clock=clock)
    with Progress("training", 1000, log=beat, clock=clock) as bar:
        for _ in range(1000):
            clock.now += 0.1
            bar.advance(steps=1, tokens=10)
            beat.tick()
    assert len(out.getvalue().splitlines()) in (10, 11)


def test_a_plain_listener_hears_when_steps_end() -> None:
    clock, said = Clock(), list[str]()
    with Progress("training", 4, log=said.append, clock=clock) as bar:
        for _ in range(4):
            clock.now += 6.0
            bar.advance(steps=1, tokens=60)
    assert [line.split(",")[0] for line in said] == [
        "training: 2 of 4 steps",
        "training: 4 of 4 steps in 24 s",
        "training: 4 of 4 steps in 24 s",
    ]


def test_hidden_progress_says_nothing() -> None:
    clock, said = Clock(), list[str]()
    with Progress("training", 1, log=said.append, shown=False, clock=clock) as bar:
        clock.now += 60.0
        bar.advance(steps=1, tokens=60)
    assert said == []
