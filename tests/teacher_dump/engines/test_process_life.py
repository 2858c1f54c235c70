"""Is every process of a dump with the real engine gone soon after the command, however it ends?"""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from teacher_dump.errors import DEAD_ENGINE_CODE

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]

LIMIT_S = 5.0
"""Seconds after the end of the command within which its processes are gone."""
LOAD_S = 300.0
"""Seconds that the engine may take to load on a busy machine."""


class Dump:
    """A dump in a process of its own, and all processes that it was ever seen to have started."""

    def __init__(self, teacher: Path, out: Path) -> None:
        self.out = out
        command = [
            *(sys.executable, "-m", "teacher_dump", "--model", str(teacher), "--data", "stdlib", "--engine", "vllm"),
            *("--dtype", "float32", "--window-tokens", "600", "--task-tokens", "50000", "--max-tokens", "2000000"),
            *("--max-documents", "400", "--out", str(out)),
        ]
        self.root = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.children: dict[int, psutil.Process] = {}

    def wait(self, reached: Callable[[], bool]) -> None:
        """Wait until something is so, and note the children meanwhile."""
        deadline = time.monotonic() + LOAD_S
        while True:
            for child in psutil.Process(self.root.pid).children(recursive=True):
                self.children.setdefault(child.pid, child)
            if reached():
                return
            assert self.root.poll() is None, self.root.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def engines(self) -> list[psutil.Process]:
        """Return the processes that multiprocessing spawned, in the order of their start."""
        found = []
        for child in self.children.values():
            try:
                # vLLM gives its processes other titles while they load.
                if "resource_tracker" not in " ".join(child.cmdline()):
                    found.append(child)
            except psutil.Error:
                continue
        return sorted(found, key=lambda c: c.create_time())

    def is_loading(self) -> bool:
        """Return whether a process of the engine is there, without a shard being written."""
        return bool(self.engines())

    def is_working(self) -> bool:
        """Return whether a shard is being written."""
        return any(self.out.glob(".*.arrow.*.part"))

    def left(self) -> list[psutil.Process]:
        """Return the children that are still there after the limit."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            left = [c for c in self.children.values() if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)


@pytest.fixture
def running(tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dump]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    dump = Dump(tiny_teacher, tmp_path / "o")
    yield dump
    dump.root.kill()
    dump.root.wait()


def test_nothing_is_left_of_a_dump_that_is_killed_while_its_engine_loads(running: Dump) -> None:
    running.wait(running.is_loading)
    running.root.kill()
    running.root.wait()
    assert running.left() == []


def test_nothing_is_left_of_a_dump_that_is_killed_while_it_works(running: Dump) -> None:
    running.wait(running.is_working)
    assert len(running.engines()) >= 2  # the engine's core and its worker
    running.root.kill()
    running.root.wait()
    assert running.left() == []


def test_a_signal_is_heard_while_the_engine_loads(running: Dump) -> None:
    running.wait(running.is_loading)
    time.sleep(2)  # vLLM waits for its process by now, and would swallow a KeyboardInterrupt
    running.root.send_signal(signal.SIGTERM)
    _, said = running.root.communicate(timeout=60)
    assert running.root.returncode == 128 + signal.SIGTERM, said
    assert running.left() == []


@pytest.mark.parametrize("which", [0, -1], ids=["core", "worker"])
def test_a_killed_engine_ends_its_command_and_leaves_nothing(running: Dump, which: int) -> None:
    running.wait(lambda: running.is_working() and len(running.engines()) >= 2)
    running.engines()[which].kill()
    _, said = running.root.communicate(timeout=120)
    assert running.root.returncode == DEAD_ENGINE_CODE, said
    assert "the engine crashed" in said
    assert "Traceback" not in said
    assert running.left() == []
