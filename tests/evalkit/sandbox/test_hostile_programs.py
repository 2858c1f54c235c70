"""No program of `hostile_programs.py` forges a verdict, gets out, or ties up the machine.

After each: it did not pass, everything outside is untouched, and the next honest program gets its verdict.

No counterpart: all layers of confinement together.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import CheckJob, Verdict
from tests.evalkit.processes import alive, descendants
from tests.evalkit.sandbox.hostile_programs import FORGED, HARMFUL

TEST = "assert f(1) == 2\nassert f(41) == 42\nassert [f(n) for n in range(5)] == [1, 2, 3, 4, 5]"
HONEST = "def f(x): return x + 1"
SLOW = {
    *("colliding keys", "colliding keys written raw", "signals caught", "endless loop that catches everything"),
    *("deep recursion", "memory by powers", "a gigabyte printed", "a billion nulls by a pattern", "a huge integer"),
    *("memory in threads", "threads that wait for ever", "alarms swallowed"),
}
"""Programs that run into a limit of time, or take as long to be refused."""


def job(program: str, **settings) -> CheckJob:
    limits = {"cpu_s": 0.5, "memory_bytes": 512 << 20} | settings
    return CheckJob(program=program, entry_points=("f",), prelude="", test=TEST, **limits)


class Outside:
    """What a program must not touch: a file, a folder, a process, a listening socket."""

    def __init__(self, folder: Path) -> None:
        self.canary = folder / "canary"
        self.canary.write_text("alive")
        self.canary.chmod(0o666)
        self.folder = folder / "outside"
        self.folder.mkdir()
        self.folder.chmod(0o777)
        self.process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)

    def fill(self, program: str) -> str:
        names = {
            "canary": self.canary,
            "outside": self.folder,
            "pid": self.process.pid,
            "port": self.socket.getsockname()[1],
            "packages": sysconfig.get_paths()["purelib"],
        }
        for name, value in names.items():
            program = program.replace(f"{{{name}}}", str(value))
        return program

    def check(self) -> None:
        assert self.canary.read_text() == "alive"
        assert self.canary.stat().st_mode & 0o777 == 0o666
        assert self.canary.stat().st_nlink == 1
        assert list(self.folder.iterdir()) == []
        assert self.process.poll() is None
        with pytest.raises(BlockingIOError):  # nobody connected
            self.socket.accept()


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    os.environ["EVALKIT_SECRET"] = "secret"
    folder = tmp_path_factory.mktemp("hostile")
    folder.chmod(0o755)
    thing = Outside(folder)
    yield thing
    thing.process.kill()
    thing.process.wait()
    thing.socket.close()
    del os.environ["EVALKIT_SECRET"]


def run(pool: Pool, outside: Outside, program: str) -> Verdict:
    verdict = pool.check_alone(job(outside.fill(program)))
    outside.check()
    assert pool.check_alone(job(HONEST)).passed, "the next honest program got no verdict"
    return verdict


@pytest.mark.parametrize("name", FORGED)
def test_a_verdict_cannot_be_forged_by(name: str, pool: Pool, outside: Outside):
    verdict = run(pool, outside, FORGED[name])
    assert not verdict.passed, verdict
    assert verdict.outcome != "infra_error", verdict


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in HARMFUL])
def test_no_harm_comes_from(name: str, pool: Pool, outside: Outside):
    verdict = run(pool, outside, HARMFUL[name])
    assert not verdict.passed, verdict
    assert verdict.outcome != "infra_error", verdict


@pytest.mark.slow
def test_nothing_is_left_behind_by_all_of_them(outside: Outside, tmp_path: Path):
    before = descendants()
    with Pool(workers=2) as checkers:
        jobs = [job(outside.fill(program)) for program in (*FORGED.values(), *HARMFUL.values())]
        futures = [checkers.submit(one) for one in jobs]
        honest = [checkers.submit(job(HONEST)) for _ in range(10)]
        assert len(jobs) >= 40
        assert [future.result().passed for future in futures] == [False] * len(jobs)
        assert [future.result().outcome for future in honest] == ["pass"] * 10
        started = descendants() - before
        assert started
    outside.check()
    assert alive(started) == set()
