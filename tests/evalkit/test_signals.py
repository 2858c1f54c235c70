"""Tests of termination by signals: quiet, and verdicts are kept."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evalkit.signals import end_quietly
from tests.evalkit.processes import alive, descendants

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    "name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow), pytest.param("SIGHUP", marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_a_signal_to_all_processes_ends_the_run_quietly_and_verdicts_are_kept(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    if signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        pytest.skip(f"{name} is ignored, as in a background job, and stays ignored in the run")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no verdict of another case
    samples = tmp_path / "s.jsonl"
    with samples.open("w") as stream:
        for number in range(400):
            completion = f"    return x + y\nimport time\ntime.sleep(0.3 + {number} / 1e6)\n"
            stream.write(json.dumps({"task_id": "HumanEval/53", "completion": completion}) + "\n")
    before = descendants()
    run = subprocess.Popen(
        [sys.executable, "-m", "evalkit", "score", "--samples", samples, "--json", tmp_path / "r.json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    database = Path(os.environ["XDG_CACHE_HOME"], "teacherless", "evalkit", "verdicts.sqlite")
    deadline = time.monotonic() + 120.0
    while num_kept(database) < 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    started = descendants() - before
    os.killpg(run.pid, getattr(signal, name))
    out, error = run.communicate(timeout=60.0)
    assert run.returncode == 128 + getattr(signal, name)
    assert out == ""
    last = error.splitlines()[-1]
    assert last == (
        f"evalkit: ended by {name}; samples and verdicts so far are kept, and the same command resumes from them"
    )
    assert "Traceback" not in error
    assert num_kept(database) >= 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "s.jsonl"]
    deadline = time.monotonic() + 10.0
    while alive(started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(started) == set()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_that_is_ignored_stays_ignored(name: str):
    """As SIGHUP is after nohup, and SIGINT in a script's background job."""
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with end_quietly():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def num_kept(database: Path) -> int:
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as known,
    ):
        return int(known.execute("SELECT count(*) FROM verdict").fetchone()[0])
    return 0
