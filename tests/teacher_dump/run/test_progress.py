"""Tests of what a dump prints, under a clock that the tests set."""

from __future__ import annotations

import io

from shards.runtime.heartbeat import Heartbeat
from teacher_dump.run.progress import ProgressBar


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: int, beat: Heartbeat) -> None:
        for _ in range(seconds):
            self.now += 1.0
            beat.tick()


def test_a_log_reports_the_start_of_the_engine_and_its_first_batch() -> None:
    clock, out = Clock(), io.StringIO()
    beat = Heartbeat(out=out, clock=clock, first="reading the corpus")
    with ProgressBar(beat, clock=clock) as bar:
        clock.pass_by(12, beat)
        bar.on_plan(3, 9000, 0, 0)
        bar.on_load_begin("vllm")
        clock.pass_by(25, beat)
        bar.on_load_end()
        clock.pass_by(31, beat)
        bar.on_tokens(1500)
        clock.pass_by(9, beat)
    assert out.getvalue().splitlines() == [
        "reading the corpus 10 s",
        "3 tasks, 9,000 tokens; 0 tasks are done already",
        "loading the teacher into vllm, which takes about a minute on a CPU",
        "  10 s",
        "  20 s",
        "0 of 9,000 tokens, 5 s; the engine answers a batch of windows at a time",
        "0 of 9,000 tokens, 15 s; the engine answers a batch of windows at a time",
        "0 of 9,000 tokens, 25 s; the engine answers a batch of windows at a time",
        "1,500 of 9,000 tokens, 48 per s, 151 s left",
    ]
    assert bar.summary() == "1,500 tokens in 31 s, 48 per s"
