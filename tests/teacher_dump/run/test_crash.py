"""Tests of crashes: no row is lost or doubled, whatever interrupts a dump.

No counterpart: these tests interrupt whole dumps.

Kills at random moments: about half by the clock, half right before or after an operation on the file system,
of one worker or two. Full disks, an unreachable store, signals, crashed engines. After each, the same command ends with
the cache that an uninterrupted run makes, to the last bit.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import shards
from shards.edit.publish import fetch, publish
from shards.errors import StoreError
from shards.verify import verify
from teacher_dump.cli import main
from teacher_dump.config import DumpConfig
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.engines.hf import TransformersEngine
from teacher_dump.run.dump import dump
from tests.exhaustive import EXHAUSTIVE
from tests.shards.faulty_s3 import Proxy, s3, s3_server  # noqa: F401 (fixtures)
from tests.teacher_dump.run import children

pytestmark = pytest.mark.slow
KILLS = 50 if EXHAUSTIVE else 20
SEED = 4
SETTINGS: dict[str, Any] = {
    "engine": "transformers",
    "window_tokens": 48,
    "task_tokens": 150,
    "chunk_tokens": 100,
    "max_tokens": 600,
    "dtype": "float32",
}
FILTERS: dict[str, Any] = {"near_duplicates": 0.0, "decontaminate": "none"}
"""Without those that take half of so small a run's time."""
LIMIT_S = 120


class Whole:
    """Result and duration of an uninterrupted run."""

    def __init__(self, config: DumpConfig, notes: Path) -> None:
        self.config = config
        end(children.start(children.run_and_count, config, notes))
        moments, seconds = notes.read_text().split()
        self.moments, self.seconds = int(moments), float(seconds)
        cache = shards.open(config.out)
        assert verify(cache) == []
        self.manifest, self.rows = cache.manifest_sha256, cache.manifest.rows_sha256
        self.names = names(config.out)

    def into(self, out: Path, **changes: Any) -> DumpConfig:
        """Return the settings of the same cache in another folder."""
        return replace(self.config, out=out, **changes)

    def completed(self, out: Path) -> bool:
        """Run to the end, and check that nothing was lost or doubled."""
        assert end(children.start(children.run, self.into(out))) == 0
        return self.is_here(out)

    def is_here(self, out: Path) -> bool:
        """Check a cache against the uninterrupted run's."""
        cache = shards.open(out)
        assert verify(cache) == []  # each row once, among others
        assert cache.manifest.rows_sha256 == self.rows
        assert cache.manifest_sha256 == self.manifest
        assert names(out) == self.names
        return True


def names(folder: Path) -> set[str]:
    """Return the files in a folder and below."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def end(child: BaseProcess) -> int | None:
    """Wait for a child and return its exit code, below 0 a signal's."""
    child.join(LIMIT_S)
    if child.exitcode is None:
        child.kill()
        raise AssertionError(f"a child ran for more than {LIMIT_S} s")
    return child.exitcode


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="module")
def whole(tiny_teacher: Path, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    config = DumpConfig(
        model=str(tiny_teacher),
        data=str(corpus_folder),
        out=folder / "o",
        filters=FilterSettings(**FILTERS),
        **SETTINGS,
    )
    return Whole(config, folder / "notes")


def test_kills_lose_nothing_and_double_nothing(whole: Whole, tmp_path: Path) -> None:
    chances = random.Random(SEED)
    kills: Counter[str] = Counter()
    trial = 0
    while kills["clock"] + kills["operation"] < KILLS:
        trial += 1
        out, story = tmp_path / str(trial), []
        try:
            for _ in range(chances.randint(1, 5)):
                story.append(_some_kills(whole, out, chances, kills))
            assert whole.completed(out)
        except AssertionError as error:
            raise AssertionError(f"seed {SEED}, folder {trial}, {story}") from error
    assert min(kills["clock"], kills["operation"], kills["two at once"]) >= 3, kills


def _some_kills(whole: Whole, out: Path, chances: random.Random, kills: Counter[str]) -> str:
    """Run one or two workers on a folder, kill some of them, and say how."""
    shares = chances.choice((["1/1"], ["1/1"], ["1/1", "1/1"], ["1/2", "2/2"], ["2/3", "1/1"]))
    how, running = [], []
    for share in shares:
        config = whole.into(out, worker=share)
        # By the clock a run may end before its time: then the next ones make up for it.
        if chances.random() < (0.25 if kills["clock"] < KILLS // 2 else 0.75):
            moment = chances.randint(1, whole.moments // len(shares))
            how.append(f"{share}: at moment {moment}")
            running.append((None, children.start(children.run_until_moment, config, moment)))
        else:
            seconds = chances.uniform(0, whole.seconds)
            how.append(f"{share}: after {seconds:.3f} s")
            running.append((time.monotonic() + seconds, children.start(children.run, config)))
    for deadline, child in sorted(running, key=lambda r: r[0] or 0):
        if deadline is not None:
            child.join(max(0.0, deadline - time.monotonic()))
            child.kill()
    for deadline, child in running:
        code = end(child)
        assert code in (0, -signal.SIGKILL), code
        if code:
            kills["clock" if deadline is not None else "operation"] += 1
            kills["two at once"] += len(shares) - 1
    return "; ".join(how)


def test_workers_of_any_number_complete_one_cache(whole: Whole, tmp_path: Path) -> None:
    first, others = whole.into(tmp_path / "o", worker="1/3"), ("2/4", "3/4", "4/4")
    outcome = dump(first)
    assert outcome.cache is None
    assert 0 < outcome.new_tasks < outcome.new_tasks + outcome.open_tasks
    assert not (tmp_path / "o" / "manifest.json").exists()
    running = [children.start(children.run, whole.into(tmp_path / "o", worker=w)) for w in others]
    assert [end(child) for child in running] == [0, 0, 0]
    last = dump(whole.into(tmp_path / "o", worker="1/4"))
    assert last.cache is not None
    assert whole.is_here(tmp_path / "o")


def test_two_workers_on_every_task_end_with_one_shard_each(whole: Whole, tmp_path: Path) -> None:
    running = [children.start(children.run, whole.into(tmp_path / "o")) for _ in range(2)]
    assert [end(child) for child in running] == [0, 0]
    assert whole.is_here(tmp_path / "o")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_disk_that_is_full_from_any_moment_on(whole: Whole, tmp_path: Path, share: float) -> None:
    moment = int(share * whole.moments * 0.6)  # of the operations that need room
    assert end(children.start(children.run_until_full, whole.into(tmp_path / "o"), moment)) == children.FAILED
    assert not any(n.endswith(".part") for n in names(tmp_path))
    assert whole.completed(tmp_path / "o")


@pytest.mark.parametrize("largest", [0, 200, 1000, 2500])
def test_a_write_that_fails_half_way(whole: Whole, tmp_path: Path, largest: int) -> None:
    assert end(children.start(children.run_with_small_files, whole.into(tmp_path / "o"), largest)) == children.FAILED
    assert not any(n.endswith(".part") for n in names(tmp_path))
    assert whole.completed(tmp_path / "o")


def test_a_store_that_fails_while_a_cache_is_published(whole: Whole, tmp_path: Path, s3: Proxy) -> None:  # noqa: F811
    cache = shards.open(whole.config.out)
    for faults in (("reset",), ("503",)):
        s3.misbehave(1.0, *faults)
        with pytest.raises(StoreError, match="gave up after 5 attempts"):
            publish(cache, "s3://bucket/cache")
    s3.misbehave(0.3, "reset", "500", "503", seed=SEED)
    for _ in range(20):
        try:
            publish(cache, "s3://bucket/cache")
            break
        except StoreError:
            continue
    s3.misbehave(0.0)
    assert publish(cache, "s3://bucket/cache").sent == 0
    fetch("s3://bucket/cache", tmp_path / "back")
    back = shards.open(tmp_path / "back")
    assert verify(back) == []
    assert back.manifest_sha256 == whole.manifest
    assert whole.is_here(whole.config.out)


def command(whole: Whole, out: Path) -> list[str]:
    """Return the arguments of the same dump."""
    options = {f"--{name.replace('_', '-')}": str(value) for name, value in (SETTINGS | FILTERS).items()}
    options |= {"--model": whole.config.model, "--data": whole.config.data, "--out": str(out)}
    return [word for pair in options.items() for word in pair]


def part_of_a_shard(out: Path) -> bool:
    """Return whether a task is being run."""
    return any(out.glob(".*.arrow.*.part"))


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_the_run_cleanly(whole: Whole, tmp_path: Path, kind: signal.Signals) -> None:
    out = tmp_path / "o"
    child = children.start(children.run_command, command(whole, out), 0.02)
    wait_for(lambda: part_of_a_shard(out))
    before = len(list(out.glob("*.arrow")))
    _send(child, kind)
    assert end(child) == 128 + kind
    assert not any(n.endswith(".part") for n in names(out))
    # SIGUSR1 finishes the current task, the others abandon it.
    assert len(list(out.glob("*.arrow"))) == before + (kind == signal.SIGUSR1)
    assert not (out / "manifest.json").exists()
    assert whole.completed(out)


def test_a_second_ctrl_c_ends_the_run_at_once(whole: Whole, tmp_path: Path) -> None:
    out = tmp_path / "o"
    child = children.start(children.run_command, command(whole, out), 0.02, 60.0)
    wait_for(lambda: part_of_a_shard(out))
    _send(child, signal.SIGINT)
    time.sleep(0.2)
    assert child.exitcode is None  # it is cleaning up, and takes its time
    begin = time.monotonic()
    _send(child, signal.SIGINT)
    assert end(child) == 130
    assert time.monotonic() - begin < 10
    assert whole.completed(out)


def _send(child: BaseProcess, kind: signal.Signals) -> None:
    assert child.pid is not None
    os.kill(child.pid, kind)


class EngineDeadError(RuntimeError):
    """Named as vLLM's."""


@pytest.mark.parametrize("last_words", [EngineDeadError("gone"), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_dead_engine_ends_the_process_and_its_task_is_done_again(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_words: Exception
) -> None:
    seen = 0
    forward = TransformersEngine._forward

    def dies(self: TransformersEngine, batch: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 7:
            raise last_words
        return forward(self, batch)

    out = tmp_path / "o"
    with monkeypatch.context() as broken:
        broken.setattr(TransformersEngine, "_forward", dies)
        result = CliRunner().invoke(main, command(whole, out))
    assert result.exit_code == 75
    assert "the engine crashed" in result.output
    assert "run the same command again" in result.output
    assert "Traceback" not in result.output
    assert not any(n.endswith(".part") for n in names(out))
    assert list(out.glob("*.arrow"))
    assert whole.completed(out)


def test_a_bug_keeps_its_traceback(whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(TransformersEngine, "_forward", wrong)
    with pytest.raises(ZeroDivisionError):
        dump(whole.into(tmp_path / "o"))
    assert not any(n.endswith(".part") for n in names(tmp_path))


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", ""])
def test_an_invalid_share_is_an_error_with_the_expected_form(text: str, whole: Whole, tmp_path: Path) -> None:
    with pytest.raises(shards.ShardError, match="expected I/N with I from 1 to N"):
        whole.into(tmp_path, worker=text)
