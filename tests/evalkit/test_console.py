"""Tests of what a score prints while it runs."""

from __future__ import annotations

import io

from evalkit.console import ScoreProgress
from shards.runtime.heartbeat import Heartbeat


def test_loading_and_generation_are_reported_in_a_log(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("evalkit.console.time.monotonic", lambda: now[0])
    out = io.StringIO()
    beat = Heartbeat(out=out, clock=lambda: now[0])
    progress = ScoreProgress(heartbeat=beat)

    def pass_by(seconds: int) -> None:
        for _ in range(seconds):
            now[0] += 1.0
            beat.tick()

    progress.note("engine transformers")
    progress.start("writing humaneval", 20)
    pass_by(12)
    progress.step(0, 0)
    progress.step(0, 100)
    pass_by(10)
    progress.step(5, 100)
    pass_by(10)
    progress.step(15, 300)
    progress.stop()
    assert out.getvalue().splitlines() == [
        "engine transformers",
        "0 of 20 samples, loading the model and reading the first prompts, 10 s",
        "0 of 20 samples, 100 tokens, 12 tokens/s, 8 s",
        "5 of 20 samples, 200 tokens, 11 tokens/s, 54 s left",
        "generated 20 samples, 500 tokens in 20 s (25 tokens/s)",
    ]
