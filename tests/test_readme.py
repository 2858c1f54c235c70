"""The README's lines of Python and of the shell run: on the published example, or with a tiny model and small sizes.

No counterpart: tests README.md. `test_end_to_end.py` runs its first three commands, `.ci/run` the `make` targets, and
`test_install.py` installs what its `pip` line does.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from evalkit.cli import main as evalkit
from student_train.cli import main as student_train
from teacher_dump.cli import main as teacher_dump
from tests.evalkit.conftest import shared_data  # noqa: F401 - fixture
from tests.teacher_dump.conftest import tiny_teacher  # noqa: F401 - fixture
from tests.teacher_dump.conversations.conftest import chat_teacher  # noqa: F401 - fixture

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line, comments=True)
    for line in re.findall(r"^    ((?:teacher-dump|student-train|evalkit|make|pip) .*)$", README, re.MULTILINE)
]
RESPONSES = [
    command for command in COMMANDS if "--prompts" in command or "smollm2-135m" in command or "mbpp" in command
]
MAIN: dict[str, click.Command] = {"teacher-dump": teacher_dump, "student-train": student_train, "evalkit": evalkit}
SMALL = {
    "teacher-dump": "--engine transformers --dtype float32 --decontaminate none --max-documents 4 --max-new-tokens 8",
    "student-train": "--dtype float32 --held-out 0.4 --max-steps 2 --batch-tokens 4096",
    "evalkit": "--engine transformers --limit 2 --max-new-tokens 8 --workers 1",
}


def test_the_lines_that_read_a_cache_run() -> None:
    (block,) = re.findall(r"^    import shards\n(?:    .*\n)+", README, re.MULTILINE)
    lines = "\n".join(line.removeprefix("    ") for line in block.splitlines())
    assert '"demo/shards/"' in lines
    names: dict[str, Any] = {}
    exec(lines.replace("demo/shards/", str(ROOT / "docs" / "examples" / "cache")), names)
    assert len(names["chunk"].head_ids) > 0
    assert len(names["cache"]) > 1


def test_every_other_command_is_run_elsewhere() -> None:
    elsewhere = [" ".join(command) for command in COMMANDS if command not in RESPONSES]
    assert elsewhere == [
        "teacher-dump --model codellama-70b --out shards/",
        "student-train --shards shards/",
        "evalkit score ckpt/",
        "make demo",
        "make test",
        "pip install .[dump,train,eval]",
    ]


@pytest.mark.slow
def test_a_teacher_writes_responses_and_a_student_learns_from_them(
    chat_teacher: Path,  # noqa: F811
    shared_data: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    mbpp = shared_data / "mbpp"
    others = {
        "Qwen/Qwen2.5-Coder-7B-Instruct": chat_teacher,
        "smollm2-135m": chat_teacher,
        "mbpp:train": f"mbpp:train={mbpp}/mbpp.jsonl",
    }
    assert [command[0] for command in RESPONSES] == ["teacher-dump", "student-train", "evalkit"]
    for name, *options in RESPONSES:
        given = [str(others.get(option, option)) for option in options]
        data = ["--data-dir", str(mbpp)] if name == "evalkit" else []
        result = CliRunner().invoke(MAIN[name], [*given, *SMALL[name].split(), *data], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert "of 2" in result.output
