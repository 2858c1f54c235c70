"""Tests of the lock of an output folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from student_train.errors import CheckpointError
from student_train.outputs import lock
from student_train.outputs.lock import LOCK_NAME, locked
from student_train.training.distributed import World
from tests.student_train.toy import run, toy_config

ALONE = World()
HOLD = """
import sys, time
from pathlib import Path
from student_train.outputs.lock import locked
class OneRank:  # without torch, which a process takes seconds to import
    is_main = True
    def gather(self, value):
        return [value]
with locked(Path(sys.argv[1]), OneRank(), log=print):
    assert "torch" not in sys.modules
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.wait()


def test_a_second_trainer_is_refused_with_the_name_of_the_first(
    world: Any, at_home: Any, holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=rf"another student-train at work in it \(process {holder.pid} on "):
        run(toy_config(world, tmp_path / "out"))
    assert sorted(os.listdir(tmp_path / "out")) == [LOCK_NAME]


def test_the_lock_of_a_killed_trainer_is_taken_over_and_that_is_said(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / LOCK_NAME).exists()
    said: list[str] = []
    with locked(tmp_path / "out", ALONE, log=said.append):
        assert json.loads((tmp_path / "out" / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert len(said) == 1
    assert f"taking over from process {holder.pid} on " in said[0]
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


def test_a_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "a" / "out", ALONE, log=pytest.fail):
            assert (tmp_path / "a" / "out").is_dir()
        assert not (tmp_path / "a" / "out").exists()


def other_host(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    """Leave the record of a trainer on another host, and make watching it quick."""
    monkeypatch.setattr(lock, "WATCHED_S", 1.0)
    out.mkdir()
    (out / LOCK_NAME).write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": "then"}))


def test_a_trainer_on_another_host_that_gives_signs_of_life_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_host(monkeypatch, tmp_path / "out")
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.05):
            os.utime(tmp_path / "out" / LOCK_NAME)

    alive = threading.Thread(target=beat)
    alive.start()
    try:
        with (
            pytest.raises(CheckpointError, match="process 1 on elsewhere"),
            locked(tmp_path / "out", ALONE, log=pytest.fail),
        ):
            pass
    finally:
        ended.set()
        alive.join()


@pytest.mark.slow
def test_a_trainer_on_another_host_without_signs_of_life_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_host(monkeypatch, tmp_path / "out")
    said: list[str] = []
    with locked(tmp_path / "out", ALONE, log=said.append):
        assert "taking over from process 1 on elsewhere" in said[0]


@pytest.mark.parametrize("content", [b"[" * 4096, b"\xff\xfe", bytes(200), b'["pid"]', b'{"pid": NaN}'])
def test_a_damaged_lock_file_does_not_keep_a_trainer_out(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "WATCHED_S", 0.1)
    (tmp_path / LOCK_NAME).write_bytes(content)
    with locked(tmp_path, ALONE, log=lambda line: None):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()


def test_signs_of_life_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.02)
    with locked(tmp_path / "out", ALONE, log=pytest.fail):
        before = (tmp_path / "out" / LOCK_NAME).stat().st_mtime_ns
        end = time.monotonic() + 10
        while (tmp_path / "out" / LOCK_NAME).stat().st_mtime_ns == before:
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_the_file_system_knows_no_locks_it_is_said_and_the_process_is_looked_up(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: subprocess.Popen[str]
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    said: list[str] = []
    with (
        pytest.raises(CheckpointError, match=f"process {holder.pid}"),
        locked(tmp_path / "out", ALONE, log=said.append),
    ):
        pass
    holder.kill()
    holder.wait()
    with locked(tmp_path / "out", ALONE, log=said.append):
        pass
    assert "has no locks" in said[0]
    assert "taking over" in said[-1]
