"""Tests of Ray: a local cluster makes the same cache, with a worker killed during a task."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

import shards
from shards.verify import verify
from teacher_dump.config import DumpConfig
from teacher_dump.run.dump import dump

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]


class Killer(threading.Thread):
    """Kills the first worker, other than this process, that runs a task."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self.killed: int | None = None
        self.finished = threading.Event()

    def run(self) -> None:
        """Look for a shard that is being written; its temporary name holds the process id."""
        while self.killed is None and not self.finished.is_set():
            for part in self._folder.glob(".*.arrow.*.part"):
                owner = re.search(r"-(\d+)-\d+\.part$", part.name)
                if owner and int(owner[1]) != os.getpid():
                    os.kill(int(owner[1]), signal.SIGKILL)
                    self.killed = int(owner[1])
                    return
            time.sleep(0.001)


def test_two_ray_workers_one_of_them_killed_make_the_same_cache(
    tiny_teacher: Path, corpus_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def config(out: str, ray: str | None) -> DumpConfig:
        return DumpConfig(
            model=str(tiny_teacher),
            data=str(corpus_folder),
            out=tmp_path / out,
            engine="transformers",
            dtype="float32",
            window_tokens=48,
            task_tokens=100,
            chunk_tokens=100,
            max_tokens=800,
            ray=ray,
            ray_workers=2 if ray else None,
        )

    whole = dump(config("whole", None)).cache
    assert whole is not None
    capfd.readouterr()
    killer = Killer(tmp_path / "ray")
    killer.start()
    outcome = dump(config("ray", "local"))
    killer.finished.set()
    assert killer.killed is not None
    assert outcome.new_tasks == len(whole.manifest.shards) > 5
    cache = shards.open(tmp_path / "ray")
    assert verify(cache) == []
    assert cache.manifest_sha256 == whole.manifest_sha256
    assert {p.name for p in (tmp_path / "ray").iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}
    shown = capfd.readouterr()
    assert "Traceback" not in shown.out + shown.err  # Ray says in a few lines that a worker died
