"""Ctrl-C ends every command with exit code 130 and no traceback, while it starts, works and ends.

No counterpart: the four programs run as processes of their own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WAIT = "for _ in range(600): time.sleep(0.05)"
"""A long wait in short parts. A signal between Python's last check and the system call does not end a sleep: after one
long sleep its handler would run 30 s late."""
COMMAND = f"""
import signal, sys, time
from shards.runtime.interrupts import interruptible, run_program

def wait():
    {WAIT}

def starting():
    print("ready", flush=True)
    wait()

def main():
    with interruptible():
        try:
            print("ready", flush=True)
            wait()
        finally:
            print("cleaning", flush=True)
            for _ in range(int(float(sys.argv[1]) / 0.05)): time.sleep(0.05)
            print("clean", flush=True)

def short():
    import atexit
    atexit.register(lambda: (print("ready", flush=True), wait()))

def ended():
    with interruptible():
        raise EOFError

if __name__ == "__main__":
    run_program("__main__", sys.argv[2])
"""


def start(tmp_path: Path, function: str, cleaning_s: float = 0.0) -> subprocess.Popen[str]:
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(COMMAND))
    arguments = [sys.executable, str(script), str(cleaning_s), function]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=None)


def wait_for(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == f"{line}\n"


@pytest.fixture(autouse=True)
def _find_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.parametrize("function", ["starting", "short"])
def test_while_it_starts_and_while_it_ends(function: str, tmp_path: Path) -> None:
    child = start(tmp_path, function)
    wait_for(child, "ready")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (130, "", "")


def test_while_it_works_files_are_cleaned_up(tmp_path: Path) -> None:
    child = start(tmp_path, "main")
    wait_for(child, "ready")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (130, "cleaning\nclean\n", "stopped by SIGINT\n")


def test_a_second_one_ends_the_clean_up(tmp_path: Path) -> None:
    child = start(tmp_path, "main", cleaning_s=30)
    wait_for(child, "ready")
    child.send_signal(signal.SIGINT)
    wait_for(child, "cleaning")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (130, "", "")


def test_the_end_of_a_file_that_no_reader_named_is_a_bug_with_its_traceback(tmp_path: Path) -> None:
    child = start(tmp_path, "ended")
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out) == (1, "")
    assert "RuntimeError: a file or stream ended before its end" in err
    assert "Aborted!" not in err


@pytest.mark.parametrize("program", ["teacher-dump", "student-train", "logit-shards", "evalkit"])
def test_every_program_ends_so_while_it_imports(program: str, tmp_path: Path) -> None:
    """The signal comes once the interpreter itself is up, which no code of a program can guard."""
    (tmp_path / "click.py").write_text(f"import time; print('ready', flush=True)\n{WAIT}")
    package = {"logit-shards": "shards"}.get(program, program.replace("-", "_"))
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from {package}.__main__ import main; main()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    wait_for(child, "ready")
    time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (130, "", "")


def test_a_deleted_working_directory_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD" && exec "$0" -m shards inspect cache', sys.executable],
        capture_output=True,
        text=True,
        check=False,
        cwd=gone,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert done.stderr == "error: the working directory was deleted; change to one that exists (cd)\n"
