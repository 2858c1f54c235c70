"""Tests of the process that writes: results, errors and signals pass between it and its parent."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from teacher_dump.errors import DeadEngineError, DumpError
from teacher_dump.run.signals import Stopped, StopSignals
from teacher_dump.writing.process import write_in_process
from tests.teacher_dump.writing.helpers import lines, save_prompts, writing_config, writing_settings

LIMIT_S = 120


def writers() -> list[psutil.Process]:
    """Return the child processes that multiprocessing spawned, which do not run a fork server or tracker."""
    return [
        child
        for child in psutil.Process().children()
        if "spawn_main" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.slow
def test_responses_and_errors_come_back(tiny_teacher: Path, tmp_path: Path, prompts: Path) -> None:
    settings = writing_settings(prompts)
    outcome = write_in_process(writing_config(tiny_teacher, tmp_path / "out"), settings, StopSignals())
    assert outcome.is_complete
    assert outcome.new_tasks == 4
    assert len(lines(tmp_path / "out")) == 21
    assert writers() == []
    with pytest.raises(DumpError, match="holds responses of other settings"):
        write_in_process(
            writing_config(tiny_teacher, tmp_path / "out"), writing_settings(prompts, samples=2), StopSignals()
        )


@pytest.mark.slow
def test_a_killed_process_is_an_error_to_try_again(tiny_teacher: Path, tmp_path: Path, prompts: Path) -> None:
    threading.Thread(target=_signal_the_writer, args=(tmp_path / "out", signal.SIGKILL), daemon=True).start()
    with pytest.raises(DeadEngineError, match="killed by SIGKILL"):
        write_in_process(
            writing_config(tiny_teacher, tmp_path / "out"), writing_settings(prompts, samples=400), StopSignals()
        )


@pytest.mark.slow
def test_a_signal_to_the_parent_ends_both_and_the_same_command_resumes(tiny_teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prompts = save_prompts(tmp_path / "p.jsonl", [f"total = {n}" for n in range(60)])
    config, settings = writing_config(tiny_teacher, out), writing_settings(prompts, max_new_tokens=60)
    stop_signals = StopSignals()

    def stop() -> None:
        _wait(lambda: len(list((out / "writing").glob("0*.jsonl"))) >= 2)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop, daemon=True)
    with pytest.raises(Stopped), stop_signals.handled():
        thread.start()
        write_in_process(config, settings, stop_signals)
    assert stop_signals.first == signal.SIGTERM
    assert writers() == []
    assert not (out / "responses.jsonl").exists()
    outcome = write_in_process(config, settings, StopSignals())
    assert outcome.is_complete
    assert outcome.reused_tasks >= 2
    assert not [path for path in out.rglob("*") if path.name.endswith(".part")]


def _signal_the_writer(out: Path, kind: signal.Signals) -> None:
    _wait(lambda: (out / "writing" / "plan.json").exists())
    for child in writers():
        child.send_signal(kind)


def _wait(condition: object) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)
