"""Tests of crashes: no response is lost, repeated or changed, whatever interrupts writing.

No counterpart: these tests interrupt whole runs.

Twenty kills at random moments, about half by the clock and half right before or after an operation on the file system,
of one worker or two. The same command then ends with the responses of an uninterrupted run, to the last bit.
"""

from __future__ import annotations

import dataclasses
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from teacher_dump.config import DumpConfig
from teacher_dump.writing.settings import WritingSettings
from tests.teacher_dump.run.children import start
from tests.teacher_dump.run.test_crash import end, names
from tests.teacher_dump.writing import children
from tests.teacher_dump.writing.helpers import save_prompts, writing_config, writing_settings

KILLS = 20
SEED = 5


class Whole:
    """Responses and duration of an uninterrupted run."""

    def __init__(self, config: DumpConfig, settings: WritingSettings, notes: Path) -> None:
        self.config, self.settings = config, settings
        end(start(children.run_and_count, config, settings, notes))
        moments, seconds = notes.read_text().split()
        self.moments, self.seconds = int(moments), float(seconds)
        self.responses = (config.out / "responses.jsonl").read_bytes()
        self.names = names(config.out)

    def into(self, out: Path, worker: str = "1/1") -> DumpConfig:
        """Return the settings of the same responses in another folder."""
        return dataclasses.replace(self.config, out=out, worker=worker)

    def completed(self, out: Path) -> None:
        """Write to the end, and check that nothing was lost, repeated or changed."""
        assert end(start(children.run, self.into(out), self.settings)) == 0
        assert (out / "responses.jsonl").read_bytes() == self.responses
        assert names(out) == self.names


@pytest.fixture(scope="module")
def whole(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    prompts = save_prompts(folder / "prompts.jsonl")
    return Whole(writing_config(tiny_teacher, folder / "out"), writing_settings(prompts), folder / "notes")


@pytest.mark.slow
def test_kills_lose_nothing_and_repeat_nothing(whole: Whole, tmp_path: Path) -> None:
    chances = random.Random(SEED)
    kills: Counter[str] = Counter()
    trial = 0
    while kills["clock"] + kills["operation"] < KILLS:
        trial += 1
        out, story = tmp_path / str(trial), []
        try:
            for _ in range(chances.randint(1, 4)):
                story.append(_some_kills(whole, out, chances, kills))
            whole.completed(out)
        except AssertionError as error:
            raise AssertionError(f"seed {SEED}, folder {trial}, {story}") from error
    assert min(kills["clock"], kills["operation"]) >= 3, kills


@pytest.mark.slow
def test_two_workers_on_every_task_end_with_one_file(whole: Whole, tmp_path: Path) -> None:
    running = [start(children.run, whole.into(tmp_path), whole.settings) for _ in range(2)]
    assert [end(child) for child in running] == [0, 0]
    whole.completed(tmp_path)


def _some_kills(whole: Whole, out: Path, chances: random.Random, kills: Counter[str]) -> str:
    """Run one or two workers on a folder, kill them, and say how."""
    shares = chances.choice((["1/1"], ["1/1"], ["1/1", "1/1"], ["1/2", "2/2"]))
    how, running = [], []
    for share in shares:
        config = whole.into(out, worker=share)
        if chances.random() < (0.3 if kills["clock"] < KILLS // 2 else 0.7):
            moment = chances.randint(1, whole.moments // len(shares))
            how.append(f"{share}: at moment {moment}")
            running.append((0.0, start(children.run_until_moment, config, whole.settings, moment)))
        else:
            seconds = chances.uniform(0, whole.seconds)
            how.append(f"{share}: after {seconds:.3f} s")
            running.append((time.monotonic() + seconds, start(children.run, config, whole.settings)))
    for deadline, child in sorted(running, key=lambda item: item[0]):
        if deadline:
            child.join(max(0.0, deadline - time.monotonic()))
            child.kill()
    for deadline, child in running:
        code = end(child)
        assert code in (0, -signal.SIGKILL), code
        if code:
            kills["clock" if deadline else "operation"] += 1
    return "; ".join(how)
