"""The watchdog ends what a killed driver leaves, and itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

_DRIVER = """
import os, subprocess, sys, time
from teacher_dump.run.cluster_watchdog import cluster_watchdog
with cluster_watchdog():
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
    print("started", flush=True)
    time.sleep(float(sys.argv[1]))
"""


def _start(seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _DRIVER, str(seconds)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    assert driver.stdout is not None
    assert driver.stdout.readline() == "started\n"
    return driver


def _descendants(pid: int, *, expected: int) -> list[psutil.Process]:
    for _ in range(200):
        found = psutil.Process(pid).children(recursive=True)
        if len(found) >= expected:
            return found
        time.sleep(0.05)
    raise AssertionError(found)


@pytest.mark.slow
def test_a_killed_driver_leaves_no_process_in_another_session() -> None:
    driver = _start(60)
    descendants = _descendants(driver.pid, expected=3)  # the watchdog, a child and its child
    time.sleep(1.5)  # the watchdog imports psutil and looks at the descendants
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    gone, alive = psutil.wait_procs(descendants, timeout=5)
    for process in alive:
        process.kill()
    assert not alive
    assert len(gone) >= 3


def test_the_watchdog_ends_with_its_block() -> None:
    driver = _start(0.2)
    watchdogs = [c for c in _descendants(driver.pid, expected=1) if "cluster_watchdog" in " ".join(c.cmdline())]
    driver.wait(timeout=30)
    assert all(not process.is_running() for process in watchdogs)
    for process in psutil.process_iter(["cmdline"]):
        if "time.sleep(60)" in " ".join(process.info["cmdline"] or ()) and process.ppid() in (1, os.getpid()):
            process.kill()
