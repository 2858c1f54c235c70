"""The machine's failure is never the program's verdict: not counted as an answer, not cached, tried again, reported.

No counterpart: pool, checker, zygote, grader and command together.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from evalkit.cli import main
from evalkit.reports.score_file import read_score
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import Verdict
from evalkit.sandbox.verdict_cache import VerdictCache
from evalkit.scoring import grader as grade
from evalkit.scoring.grader import Grader
from evalkit.scoring.metrics import summarise
from tests.evalkit.processes import descendants
from tests.evalkit.sandbox.jobs import job

ROOT = Path(__file__).resolve().parents[3]
HOLDS_700_MB = "    return x + y\n_b = bytearray(b'x') * (700 << 20)\n"


MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")


def call(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grade, "_PAUSE_S", 0.0)


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A cgroup (version 1 or 2) of 600 MB, where this process may make one."""
    parent, name = (
        (MEMORY_GROUPS, "memory.limit_in_bytes")
        if MEMORY_GROUPS.is_dir()
        else (
            Path("/sys/fs/cgroup"),
            "memory.max",
        )
    )
    folder = parent / f"evalkit-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / name).write_text(str(600 << 20))
        with contextlib.suppress(OSError):
            (folder / "memory.swap.max").write_text("0")
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no cgroup can be made here ({error})")
    yield folder
    folder.rmdir()


@pytest.mark.slow
def test_a_program_that_the_kernel_kills_for_memory_is_not_counted_and_not_cached(tmp_path: Path, small_group: Path):
    samples = tmp_path / "s.jsonl"
    lines = [
        {"task_id": "HumanEval/53", "completion": HOLDS_700_MB},
        {"task_id": "HumanEval/53", "completion": "    return x + y\n"},
        {"task_id": "HumanEval/53", "completion": "    return x - y\n"},
    ]
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-m", "evalkit", "score", "--samples", samples, "--json", tmp_path / "r.json"]
    inside = f'echo $$ > {small_group}/cgroup.procs && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", inside, "sh", *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1, done.stderr
    assert "1 sample could not be executed" in done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    assert [verdict["outcome"] for verdict in result["tasks"]["HumanEval/53"]] == ["infra_error", "pass", "wrong"]
    assert "killed from outside" in result["tasks"]["HumanEval/53"][0]["detail"]
    assert result["scores"]["humaneval"]["pass@1"] == 0.5
    assert result["scores"]["humaneval"]["infra_errors"] == 1
    again = call("score", "--samples", samples, "--json", tmp_path / "r.json")  # outside: there is room
    assert again.exit_code == 0, again.output
    result = json.loads((tmp_path / "r.json").read_text())
    assert [verdict["outcome"] for verdict in result["tasks"]["HumanEval/53"]] == ["pass", "pass", "wrong"]


def kill_soon(before: set[str], place: int) -> threading.Thread:
    """Half a second from now, kill one of the processes that a pool started: they come in the order of their ids."""

    def kill() -> None:
        time.sleep(0.5)
        os.kill(sorted(int(process.split()[0]) for process in descendants() - before)[place], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


@pytest.mark.parametrize("place", [0, 1, 2, -1], ids=["checker", "zygote", "zygote inside", "program"])
@pytest.mark.slow
def test_whatever_is_killed_from_outside_the_program_gets_its_verdict_later(tmp_path: Path, place: int):
    before = descendants()
    cache = VerdictCache(tmp_path)
    with Pool(workers=1) as checkers:
        thread = kill_soon(before, place)
        grader = Grader(checkers, cache)
        grader.add(job("import time\ntime.sleep(1.5)\ndef f(x): return x + 1"))
        first = next(iter(grader._running.values())).result()
        thread.join()
        assert first.outcome == "infra_error", first
        assert [verdict.outcome for verdict in grader.finish()] == ["pass"]
    cache.close()


def test_a_program_that_closes_its_channel_is_still_one_that_left(pool: Pool):
    verdict = pool.check_alone(job("import os\ndef f(x):\n    os.closerange(0, 64)\n    while True: pass"))
    assert (verdict.outcome, verdict.detail) == ("exited", "closed its channel")


def test_what_exceeds_the_sandbox_own_limit_is_still_oom(pool: Pool):
    verdict = pool.check_alone(job("def f(x): return len(bytearray(3 << 30))", memory_bytes=1 << 30))
    assert verdict.outcome == "oom"


def test_infra_errors_are_in_no_denominator():
    right, wrong, lost = (Verdict(outcome=outcome) for outcome in ("pass", "wrong", "infra_error"))
    score = summarise({"a": [right, lost], "b": [wrong, wrong], "c": [lost, lost]}).to_dict()
    assert score["pass@1"] == 0.5
    assert (score["problems"], score["solved"], score["samples"], score["infra_errors"]) == (2, 1, 6, 3)
    assert "pass@2" not in score  # one problem has a single sample left
    nothing = summarise({"a": [lost]}).to_dict()
    assert (nothing["interval"], nothing["problems"], nothing["infra_errors"]) == ({}, 0, 1)


def test_a_run_in_which_nothing_could_be_judged_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Pool, "_check", lambda self, job: Verdict(outcome="infra_error", detail="no room"))
    samples = tmp_path / "s.jsonl"
    samples.write_text('{"task_id": "HumanEval/53", "completion": "    return x + y"}\n')
    done = call("score", "--no-cache", "--samples", samples)
    assert done.exit_code == 1
    assert "1 sample could not be executed" in done.stderr
    result = tmp_path / "s-evalkit" / "score.json"
    assert json.loads(result.read_text())["scores"]["humaneval"]["infra_errors"] == 1
    assert (tmp_path / "s-evalkit" / "score.html").is_file()
    assert read_score(result).tasks == {}


def test_a_limit_that_the_machine_refuses_is_not_the_programs_failure():
    """The hard limit is below the program's own: no program could begin."""
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_CPU, (60, 60)); sys.path.insert(0, sys.argv[1])\n"
        "from evalkit.sandbox.pool import Pool\nfrom evalkit.sandbox.verdict import CheckJob\n"
        "with Pool(workers=1) as pool:\n"
        "    print(pool.check_alone(CheckJob(program='def f(x): return x + 1', entry_points=('f',), prelude='', "
        "test='assert f(1) == 2', cpu_s=90.0)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(ROOT)], capture_output=True, text=True)
    assert "outcome='infra_error'" in done.stdout, done.stderr
    assert "the program could not be started (Operation not permitted)" in done.stdout


def test_a_limit_on_address_space_is_one_line(tmp_path: Path):
    samples = tmp_path / "s.jsonl"
    samples.write_text('{"task_id": "HumanEval/53", "completion": "    return x + y"}\n')
    command = f"ulimit -v 1000000; exec {sys.executable} -m evalkit score --samples {samples}"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("evalkit: the limit on address space (ulimit -v) is 1,024 MB, evalkit needs")


def test_a_missing_file_of_the_host_is_not_the_programs_failure(pool: Pool):
    inputs = {"path": "/nowhere/HumanEvalPlus.jsonl.gz", "sha256": "0", "task_id": "HumanEval/53", "cache": None}
    verdict = pool.check_alone(job("def f(x): return x + 1", inputs=inputs))
    assert verdict.outcome == "infra_error", verdict
    assert "No such file" in verdict.detail
    missing = pool.check_alone(job("def f(x): return x + 1", "import no_such_module\nassert f(1) == 2"))
    assert missing.outcome == "infra_error"


def test_a_programs_own_missing_file_is_its_own_failure(pool: Pool):
    verdict = pool.check_alone(job("def f(x): return open('/usr/lib/no-such-file')"))
    assert verdict.outcome not in ("infra_error", "pass")
    assert pool.check_alone(job("import no_such_module\ndef f(x): return 2")).outcome == "exception"


def test_a_program_too_long_to_send_is_an_exception_in_fitting_units(pool: Pool):
    verdict = pool.check_alone(job("def f(x): return x + 1\n#" + "x" * 17_000_000))
    assert (verdict.outcome, verdict.detail) == ("exception", "a program of 17 MB, limit 16.8 MB")
    assert pool.check_alone(job("def f(x): return x + 1\n#" + "x" * 15_000_000)).passed


def test_a_verdict_cache_that_is_no_database_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "cache" / "teacherless" / "evalkit"
    folder.mkdir(parents=True)
    (folder / "verdicts.sqlite").write_text("not a database" * 100)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    samples = tmp_path / "s.jsonl"
    samples.write_text('{"task_id": "HumanEval/53", "completion": "    return x + y"}\n')
    done = call("score", "--samples", samples, "--no-html")
    assert done.exit_code == 0
    assert "verdicts are not cached" in done.stderr


@pytest.mark.parametrize("most", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 6, 8)), 30])
def test_a_limit_on_processes_is_one_line_or_no_hindrance(tmp_path: Path, most: int):
    group = Path(f"/sys/fs/cgroup/pids/evalkit-test-{os.getpid()}")
    try:
        group.mkdir()
        (group / "pids.max").write_text(str(most))
    except OSError as error:
        pytest.skip(f"no cgroup can be made here ({error})")
    samples = tmp_path / "s.jsonl"
    samples.write_text('{"task_id": "HumanEval/53", "completion": "    return x + y"}\n')
    command = f"echo $$ > {group}/cgroup.procs; exec {sys.executable} -m evalkit score --no-cache --samples {samples}"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # its processes are collected in their own time
            group.rmdir()
            break
        time.sleep(0.05)
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr
    if done.returncode == 0:
        assert json.loads((tmp_path / "s-evalkit" / "score.json").read_text())["scores"]["humaneval"]["pass@1"] == 1
    else:
        assert done.stderr.splitlines()[-1].startswith("evalkit: ")
    assert most < 30 or done.returncode == 0
