"""Tests of child processes that end with the process that started them, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shards.runtime.lifetime import ProcessIdentity

LIMIT_S = 5.0
PROGRAM = """
import multiprocessing, os, sys, threading, time

from shards.runtime.lifetime import bind_children


def tell(name):
    with open(f"{sys.argv[1]}/{name}.part", "w") as file:
        file.write(str(os.getpid()))
    os.replace(f"{sys.argv[1]}/{name}.part", f"{sys.argv[1]}/{name}")


def start(target, *arguments, thread=False):
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    if thread:
        by = threading.Thread(target=process.start)
        by.start()
        by.join()
    else:
        process.start()
    return process


def sleep(name):
    tell(name)
    time.sleep(600)


def middle():
    tell("middle")
    start(sleep, "grandchild").join()


if __name__ == "__main__":
    bind_children()
    children = [start(middle), start(sleep, "by_a_thread", thread=True)]
    tell("root")
    {end}
"""
NAMES = ("root", "middle", "grandchild", "by_a_thread")
SLEEP = "time.sleep(600)"
EXIT = (
    "while not all(os.path.exists(f'{sys.argv[1]}/{n}') for n in ('grandchild', 'by_a_thread')): pass\n    os._exit(3)"
)


def started(folder: Path, end: str) -> tuple[subprocess.Popen[bytes], dict[str, ProcessIdentity]]:
    """Start the program, wait until all its processes have told who they are, and return them."""
    script = folder / "program.py"
    script.write_text(PROGRAM.replace("{end}", end))
    root = subprocess.Popen([sys.executable, script, folder], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not all((folder / name).exists() for name in NAMES):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return root, {name: ProcessIdentity.of(int((folder / name).read_text())) for name in NAMES}


def gone(processes: dict[str, ProcessIdentity]) -> list[str]:
    """Return which processes are still there after the limit."""
    deadline = time.monotonic() + LIMIT_S
    while (left := [n for n, p in processes.items() if p.started and p.is_alive()]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_children_and_grandchildren_end_with_a_root_that_is_killed(tmp_path: Path, kind: signal.Signals) -> None:
    root, processes = started(tmp_path, SLEEP)
    assert all(p.started for p in processes.values())
    root.send_signal(kind)
    assert root.wait(30) == -kind
    assert gone(processes) == []


def test_children_and_grandchildren_end_with_a_root_that_exits_without_clean_up(tmp_path: Path) -> None:
    root, processes = started(tmp_path, EXIT)
    assert root.wait(30) == 3
    assert gone(processes) == []


@pytest.mark.slow
def test_a_grandchild_ends_with_its_parent_and_the_others_stay(tmp_path: Path) -> None:
    root, processes = started(tmp_path, SLEEP)
    try:
        os.kill(processes["middle"].pid, signal.SIGKILL)
        family = {name: processes[name] for name in ("middle", "grandchild")}
        assert gone(family) == []
        time.sleep(1)
        assert processes["root"].is_alive()
        assert processes["by_a_thread"].is_alive()  # though the thread that started it has ended
    finally:
        root.kill()
        root.wait()
    assert gone(processes) == []


def test_a_child_whose_root_has_ended_already_does_not_start() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    program = (
        "import os; from shards.runtime.lifetime import follow; "
        f"follow(parent=os.getppid(), by_kernel=False, root_pid={ended.pid}, root_started='1'); print('alive')"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (-signal.SIGKILL, "")


@pytest.mark.slow
def test_processes_are_watched_without_pidfd_too() -> None:
    program = """
import os, subprocess, sys, time
del os.pidfd_open
from shards.runtime.lifetime import ProcessIdentity, follow
root = subprocess.Popen(["sleep", "1"])
follow(parent=os.getppid(), by_kernel=False, root_pid=root.pid, root_started=ProcessIdentity.of(root.pid).started)
print("alive", flush=True)
root.wait()
time.sleep(30)
"""
    begin = time.monotonic()
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (-signal.SIGKILL, "alive\n")
    assert time.monotonic() - begin < 1 + LIMIT_S


def test_an_identity_is_not_that_of_a_later_process_with_the_same_number() -> None:
    own = ProcessIdentity.of(os.getpid())
    assert own.is_alive()
    assert not ProcessIdentity(own.pid, str(int(own.started) + 1)).is_alive()
