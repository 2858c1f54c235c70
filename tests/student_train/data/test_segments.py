"""Tests of training from a growing cache: each row once before any twice, the same bits when resumed."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.live import open_live
from student_train.config import Config
from student_train.data import segments as follow
from student_train.data.hashing import is_held_out
from student_train.data.mixture import Mixture
from student_train.data.segments import Segments
from student_train.errors import CheckpointError, Interrupted, TrainError
from student_train.training import loop, trainer
from student_train.training.build_run import build_run
from student_train.training.distributed import World
from student_train.training.runtime import Runtime, Signals
from student_train.training.state import Handover
from tests.student_train.growing import Dump, rows_of

REPOSITORY = Path(__file__).parents[3]
FOLLOWED = Mixture(caches=(), shares=None, follows=True)


@pytest.fixture
def dump(world: Any, tools: Any, tmp_path: Path) -> Dump:
    whole = tools.write_cache(tmp_path / "whole", world.rows, world.teacher_dir, vocab=world.vocab, shards=4)
    return Dump(whole, tmp_path / "growing")


def config(shards: Path, out: Path, **more: Any) -> Config:
    settings: dict[str, Any] = {
        "shards": (str(shards),),
        "out": str(out),
        "follow": True,
        "student": "teacher",
        "student_layers": 2,
        "max_steps": 16,
        "batch_tokens": 150,
        "held_out": 0.2,
        "save_every": 3,
        "tensorboard": False,
        "progress": False,
        "threads": 1,
        "dtype": "float32",
    }
    return Config(**{**settings, **more})


def segments_of(
    settings: Config, written: list[dict[str, Any]] | None = None, *, log: Callable[[str], None] = print
) -> Segments:
    written = [] if written is None else written
    return Segments(settings, FOLLOWED, written, world=World(), log=log, stopped=lambda: False)


@pytest.mark.slow
def test_a_growing_cache_shows_its_complete_shards_until_the_manifest_counts(dump: Dump) -> None:
    assert open_live(dump.place / "nowhere") is None
    shown = open_live(dump.place)
    assert shown is not None
    assert (len(shown.cache), shown.complete) == (0, False)
    dump.shard(2)
    dump.shard(0)
    shutil.copyfile(
        dump.whole / dump.manifest.shards[1].name, dump.place / dump.manifest.shards[1].name
    )  # no entry yet
    shown = open_live(dump.place)
    assert [s.name for s in shown.cache.manifest.shards] == [dump.manifest.shards[i].name for i in (0, 2)]
    assert shown.cache.tokenizer_dir.is_dir()
    assert len(shown.cache[0].rows) == shown.cache.chunk_rows(0)
    for i in (1, 3):
        dump.shard(i)
    dump.finish()
    shown = open_live(dump.place)
    assert shown.complete
    assert shown.cache.manifest_sha256 == dump.manifest.sha256


@pytest.mark.slow
def test_every_row_is_read_once_before_any_is_read_twice(dump: Dump, tmp_path: Path, world: Any) -> None:
    settings = config(dump.place, tmp_path / "out", max_steps=10_000)
    grow = [lambda: dump.shard(1), lambda: (dump.shard(3), dump.shard(0)), lambda: dump.shard(2), dump.finish]
    segments, seen, waits = segments_of(settings), [], []

    def next_shards() -> None:
        waits.append(1)
        grow.pop(0)()

    legs = segments.legs(total=10_000, before_waiting=next_shards)
    for leg in legs:
        seen += rows_of(leg)
        if segments.written[-1]["passes"]:
            break
    every = Counter((row.rows[0].document, row.rows[0].window) for row in world.rows)
    assert Counter(seen[: len(world.rows)]) == every
    assert Counter(seen[len(world.rows) :]) == every
    assert [len(s["shards"]) for s in segments.written] == [1, 2, 1, 4]
    assert [s["passes"] for s in segments.written] == [False, False, False, True]
    assert len(waits) == 4
    assert segments.caches[0].manifest_sha256 == dump.manifest.sha256

    # What is written down decides, however far the cache has grown since, and any new one begins after it.
    for known in range(5):
        again = segments_of(settings, json.loads(json.dumps(segments.written[:known])))
        found = []
        for leg in again.legs(total=10_000, before_waiting=lambda: None):
            found += rows_of(leg)
            if again.written[-1]["passes"] and leg.last == 10_000:
                break
        if known >= 3:
            assert found == seen
        if known:
            assert Counter(found[: len(world.rows)]) == every


@pytest.mark.slow
def test_shards_that_the_run_was_trained_on_must_stay(dump: Dump, tmp_path: Path) -> None:
    dump.shard(0)
    settings = config(dump.place, tmp_path / "out")
    segments = segments_of(settings)
    segments.leg(0, first_step=0, total=16)
    changed = [{**segments.written[0], "sha256": "ab" * 32}]
    with pytest.raises(CheckpointError, match=r"found shards of digest \w+ from step 0, expected abababababab"):
        segments_of(settings, changed).leg(0, first_step=0, total=16)
    name = dump.manifest.shards[0].name
    (dump.place / f"{name}.json").unlink()
    with pytest.raises(CheckpointError, match=rf"found no {name}, expected it and 0 other shards"):
        segments_of(settings, segments.written).leg(0, first_step=0, total=16)


@pytest.mark.slow
def test_a_run_ahead_of_the_dump_saves_waits_and_gives_up_in_time(
    dump: Dump, tmp_path: Path, at_home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "POLL_S", 0.01)
    dump.shard(0)
    out, said = tmp_path / "out", []
    settings = config(dump.place, out, follow_wait=0.05, save_every=0)
    with pytest.raises(TrainError, match=r"found no new shards in 0 s, expected the dump to continue"):
        trainer.run(settings, command=[], log=said.append)
    assert any("ahead of the dump, all of 1 complete shards are used; waiting for more" in line for line in said)
    (saved,) = (int(p.name.removeprefix("step-")) for p in (out / "checkpoints").iterdir())
    for i in (1, 2, 3):
        dump.shard(i)
    dump.finish()
    trainer.run(settings, command=[], log=said.append)
    assert f"continuing at step {saved} of 16" in "".join(said)


@pytest.mark.slow
def test_followed_resumed_and_repeated_runs_end_in_the_same_bits(
    dump: Dump, tmp_path: Path, at_home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump.shard(1)
    grow = [lambda: dump.shard(3), lambda: dump.shard(0), lambda: dump.shard(2), dump.finish]
    monkeypatch.setattr(Segments, "_wait", lambda *_: grow.pop(0)())
    trainer.run(config(dump.place, tmp_path / "a", control=True), command=[], log=print)
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert [s["first_step"] for s in record["segments"]] == sorted({s["first_step"] for s in record["segments"]})
    assert [s["passes"] for s in record["segments"]] == [False, False, False, False, True]
    control = json.loads((tmp_path / "a" / "control" / "run.json").read_text())
    assert control["segments"] == record["segments"]
    assert control["train"]["tokens"] == record["train"]["tokens"]

    # Another folder, complete: the record alone says what was read when. Stopped twice on the way.
    repeat = config(dump.whole, tmp_path / "b")
    real = loop.take_step
    for stop_at in (5, 11):

        def dies(*args: Any, number: int, stop_at: int = stop_at, **named: Any) -> Any:
            if number == stop_at:
                raise KeyboardInterrupt
            return real(*args, number=number, **named)

        monkeypatch.setattr(loop, "take_step", dies)
        with pytest.raises(KeyboardInterrupt):
            trainer.run(repeat, command=[], log=print, segments=record["segments"])
    monkeypatch.setattr(loop, "take_step", real)
    trainer.run(repeat, command=[], log=print, segments=record["segments"])
    names = ("model.safetensors", "held_out.jsonl")
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)
    assert json.loads((tmp_path / "b" / "run.json").read_text())["segments"] == record["segments"]


def test_a_signal_while_waiting_is_heard(dump: Dump, tmp_path: Path) -> None:
    settings = config(dump.place, tmp_path / "out")
    segments = Segments(settings, FOLLOWED, [], world=World(), log=print, stopped=lambda: True)
    assert segments.leg(0, first_step=0, total=16) is None
    with pytest.raises(Interrupted, match="stopped at step 0 of 16"):
        build_run(settings, FOLLOWED, Handover(segments=[]), Runtime(signals=Signals(stop=True)))


def test_following_needs_an_end(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="follow without max-steps: found no end"):
        config(tmp_path, tmp_path, max_steps=0)


@pytest.mark.slow
def test_a_run_keeps_up_with_a_dump_in_another_process(dump: Dump, world: Any, tmp_path: Path) -> None:
    flags = ["--follow", "--follow-wait", "300", "--student", "teacher", "--student-layers", "2", "--max-steps", "12"]
    flags += ["--batch-tokens", "150", "--held-out", "0.2", "--no-tensorboard", "--no-progress", "--threads", "1"]
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "student_train", "--shards", str(dump.place), "--out", str(out), *flags],
        env={**os.environ, "TEACHERLESS_CACHE": str(world.cache_dir), "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
    )
    said, grow = "", [*(functools.partial(dump.shard, i) for i in range(4)), dump.finish]
    try:
        assert process.stderr is not None
        for line in process.stderr:
            said += line
            if "waiting for more" in line and grow:
                grow.pop(0)()
        process.wait()
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert said.count("waiting for more") >= 3
    record = json.loads((out / "run.json").read_text())
    assert record["train"]["steps"] == 12
    trained = [name for s in record["segments"] if not s["passes"] for name in s["shards"]]
    assert len(trained) == len(set(trained))
    held = [row for row in world.rows if is_held_out(row.rows[0].document, fraction=0.2)]
    assert 0 < record["held_out"]["rows"] <= len(held)
