"""Processes of the real engine end soon after the command that started them, however it ends.

No counterpart: whole commands run, and are killed while their engine loads or works.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from teacher_dump.errors import DEAD_ENGINE_CODE
from tests.exhaustive import exhaustive

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]

LIMIT_S = 5.0
"""Seconds after the end of a command within which its processes end."""
LOAD_S = 600.0
"""Seconds that an engine may take to load on a busy machine."""
END_S = 60.0
"""Seconds that a command may take to end after a signal."""
POLL_S = 0.25
"""Seconds between two looks at the children of a command: each reads the state of all processes."""


class Command:
    """A command in a process of its own, and all processes that it was seen to start."""

    def __init__(self, *arguments: str, out: Path) -> None:
        self.out = out
        self.root = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.children: dict[int, psutil.Process] = {}

    def wait(self, reached: Callable[[], bool]) -> None:
        """Wait until a condition holds, and note the children meanwhile."""
        deadline = time.monotonic() + LOAD_S
        while True:
            self.note_children()
            if reached():
                return
            assert self.root.poll() is None, self.root.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(POLL_S)

    def wait_for_end(self) -> str:
        """Wait for the command to end by itself, note its children meanwhile, and return its stderr."""
        deadline = time.monotonic() + LOAD_S
        while self.root.poll() is None:
            self.note_children()
            assert time.monotonic() < deadline
            time.sleep(POLL_S)
        return self.root.communicate()[1]

    def note_children(self) -> None:
        try:
            for child in psutil.Process(self.root.pid).children(recursive=True):
                self.children.setdefault(child.pid, child)
        except psutil.NoSuchProcess:
            pass

    def end(self, how: signal.Signals) -> str:
        """Send a signal to the command alone, and return its stderr once it has ended."""
        self.root.send_signal(how)
        return self.root.communicate(timeout=END_S)[1]

    def engines(self) -> list[psutil.Process]:
        """Return the processes that multiprocessing spawned, in the order of their start."""
        spawned = []
        for child in self.children.values():
            try:
                # vLLM changes the titles of its processes while they load.
                if "resource_tracker" not in " ".join(child.cmdline()):
                    spawned.append(child)
            except psutil.Error:
                continue
        return sorted(spawned, key=lambda child: child.create_time())

    def is_loading(self) -> bool:
        """Return whether a process of the engine runs."""
        return bool(self.engines())

    def is_working(self) -> bool:
        """Return whether a shard is being written."""
        return any(self.out.glob(".*.arrow.*.part"))

    def left(self) -> list[psutil.Process]:
        """Return the children that still run after the limit."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            left = [c for c in self.children.values() if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Command]]:
    """Return a function that starts a command, which is killed at the end of the test."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    started: list[Command] = []

    def run(*arguments: str) -> Command:
        started.append(Command(*arguments, out=tmp_path / "o"))
        return started[-1]

    yield run
    for command in started:
        command.root.kill()
        command.root.wait()


@pytest.fixture
def dump(tiny_teacher: Path, start: Callable[..., Command], tmp_path: Path) -> Command:
    """Return a running `teacher-dump` whose work takes minutes."""
    return start(
        *("teacher_dump", "--model", str(tiny_teacher), "--data", "stdlib", "--engine", "vllm"),
        *("--dtype", "float32", "--window-tokens", "600", "--task-tokens", "50000", "--max-tokens", "2000000"),
        *("--max-documents", "400", "--out", str(tmp_path / "o")),
    )


@pytest.fixture
def score(tiny_teacher: Path, start: Callable[..., Command], tmp_path: Path) -> Command:
    """Return a running `evalkit score` whose answers take minutes."""
    return start(
        *("evalkit", "score", str(tiny_teacher), "--engine", "vllm", "--dtype", "float32", "--n", "20"),
        *("--temperature", "1", "--batch-size", "2", "--limit", "20", "--out", str(tmp_path / "o")),
    )


def has_answers(out: Path) -> bool:
    """Return whether `evalkit score` has written answers."""
    return any(path.stat().st_size for path in out.rglob("*.jsonl"))


def test_nothing_is_left_of_a_dump_that_is_killed_while_its_engine_loads(dump: Command) -> None:
    dump.wait(dump.is_loading)
    dump.end(signal.SIGKILL)
    assert dump.left() == []


def test_nothing_is_left_of_a_dump_that_is_killed_while_it_works(dump: Command) -> None:
    dump.wait(dump.is_working)
    assert len(dump.engines()) >= 2  # the engine's core and its worker
    dump.end(signal.SIGKILL)
    assert dump.left() == []


@pytest.mark.parametrize("how", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=exhaustive)])  # one handler
def test_a_signal_ends_a_dump_that_works_and_its_engine(dump: Command, how: signal.Signals) -> None:
    dump.wait(dump.is_working)
    stderr = dump.end(how)
    assert dump.root.returncode == 128 + how, stderr
    assert "Traceback" not in stderr
    assert dump.left() == []


def test_a_signal_ends_a_dump_while_its_engine_loads(dump: Command) -> None:
    dump.wait(dump.is_loading)
    time.sleep(2)  # vLLM now waits for its process, and would swallow a KeyboardInterrupt
    stderr = dump.end(signal.SIGTERM)
    assert dump.root.returncode == 128 + signal.SIGTERM, stderr
    assert dump.left() == []


def test_an_engine_killed_while_it_loads_is_one_line(dump: Command) -> None:
    dump.wait(dump.is_loading)
    time.sleep(2)
    dump.engines()[0].kill()
    stderr = dump.wait_for_end()
    assert dump.root.returncode == 1, stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert "vllm: the engine did not start (" in line
    assert "its whole output is in " in line
    assert "Traceback" not in stderr
    assert dump.left() == []


@pytest.mark.parametrize("which", [0, -1], ids=["core", "worker"])
def test_a_killed_engine_ends_its_command_and_leaves_nothing(dump: Command, which: int) -> None:
    dump.wait(lambda: dump.is_working() and len(dump.engines()) >= 2)
    dump.engines()[which].kill()
    stderr = dump.root.communicate(timeout=120)[1]
    assert dump.root.returncode == DEAD_ENGINE_CODE, stderr
    assert "the engine crashed" in stderr
    assert "Traceback" not in stderr
    assert dump.left() == []


@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, marks=exhaustive), signal.SIGINT])
def test_nothing_is_left_of_an_evaluation_that_ends_while_its_engine_works(
    score: Command, how: signal.Signals, tmp_path: Path
) -> None:
    if how != signal.SIGKILL and signal.getsignal(how) is signal.SIG_IGN:
        pytest.skip(f"{how.name} is ignored, as in a background job, and stays ignored in the run")
    score.wait(lambda: has_answers(tmp_path / "o"))
    assert len(score.engines()) >= 2
    stderr = score.end(how)
    assert score.root.returncode == (-how if how == signal.SIGKILL else 128 + how), stderr
    assert "Traceback" not in stderr
    assert score.left() == []


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=exhaustive)])
def test_nothing_is_left_of_a_killed_driver_of_ray(
    engine: str, tiny_teacher: Path, start: Callable[..., Command], tmp_path: Path
) -> None:
    driver = start(
        *("teacher_dump", "--model", str(tiny_teacher), "--data", "stdlib", "--engine", engine, "--ray", "local"),
        *("--dtype", "float32", "--window-tokens", "600", "--task-tokens", "50000", "--max-tokens", "2000000"),
        *("--max-documents", "400", "--out", str(tmp_path / "o")),
    )
    driver.wait(driver.is_working)
    driver.end(signal.SIGKILL)
    assert driver.left() == []


@exhaustive
def test_nothing_is_left_of_a_benchmark_that_ends_normally(
    tiny_teacher: Path, start: Callable[..., Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((os.getcwd(), os.environ.get("PYTHONPATH", ""))))
    benchmark = start(
        *("benchmarks.capture_rate", "--model", str(tiny_teacher), "--rows", "2", "--tokens", "64", "--rounds", "1"),
        *("--ways", "capture", "generate", "--dtype", "float32"),
    )
    stderr = benchmark.wait_for_end()
    assert benchmark.root.returncode == 0, stderr
    assert len(benchmark.engines()) == 0
    assert len(benchmark.children) >= 2
    assert benchmark.left() == []
