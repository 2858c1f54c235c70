"""Tests of the runner of stages with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks._common import ROOT
from benchmarks._stages import Stage, is_done, run_stages

RUNNER = """
import sys
from collections.abc import Callable
from pathlib import Path
from benchmarks._stages import Stage, run_stages
program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
stage = Stage(name="sleep", module="timeit", arguments=("-n", "1", "-r", "1", program))
run_stages([stage], Path(sys.argv[1]), jobs=1)
"""


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_command_ends_with_the_run_that_started_it(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "sleep.log"
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
        pid = int(log.read_text())
        assert is_alive(pid)
    finally:
        os.kill(runner.pid, signal.SIGKILL)
        runner.wait()
    assert wait_until(lambda: not is_alive(pid))
    assert not (tmp_path / "marks").exists()


def test_a_stage_that_fails_keeps_those_that_need_it_open(tmp_path: Path) -> None:
    good = Stage(name="good", module="timeit", arguments=("-n", "1", "-r", "1", "pass"))
    bad = Stage(name="bad", module="timeit", arguments=("-n", "1", "-r", "1", "no such name"))
    after = Stage(name="after", module="timeit", arguments=("pass",), needs=("bad",))
    assert run_stages([after, bad, good], tmp_path, jobs=2) == ["after", "bad"]
    assert is_done(good, tmp_path)
    assert not is_done(bad, tmp_path)
    mark = json.loads((tmp_path / "marks" / "good.json").read_bytes())
    assert mark["arguments"] == ["-n", "1", "-r", "1", "pass"]
    other = Stage(name="good", module="timeit", arguments=("-n", "2", "pass"))
    assert not is_done(other, tmp_path)
