"""The two commands of docs/from_trl.md on the rows that it shows, with a tiny model.

No counterpart: a page of the documentation.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import shards
from shards.format.messages import parse_messages
from student_train.cli import main as student_train
from teacher_dump.cli import main as teacher_dump
from tests.teacher_dump.conftest import tiny_teacher  # noqa: F401 - fixture
from tests.teacher_dump.conversations.conftest import chat_teacher  # noqa: F401 - fixture

PAGE = (Path(__file__).parents[1] / "docs" / "from_trl.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line) for line in re.findall(r"^    ((?:teacher-dump|student-train) .*)$", PAGE, re.MULTILINE)]
FORMS = [json.loads(line) for line in re.findall(r"^    (\{.*\})$", PAGE, re.MULTILINE)]
MAIN = {"teacher-dump": teacher_dump, "student-train": student_train}
SMALL = {
    "teacher-dump": ["--engine", "transformers", "--dtype", "float32", "--decontaminate", "none"],
    "student-train": ["--dtype", "float32", "--held-out", "0.4", "--max-steps", "2", "--batch-tokens", "256"],
}


def asking(form: dict[str, Any], number: int) -> dict[str, Any]:
    """Return a row of the same form with another question."""
    row: dict[str, Any] = json.loads(json.dumps(form).replace("Reverse a string", f"Reverse string {number}"))
    return row


@pytest.mark.parametrize(
    "form",
    FORMS,
    ids=["messages", "prompt and completion as messages", "prompt and completion as texts"],
)
@pytest.mark.slow
def test_a_data_set_of_trl_goes_from_file_to_student_in_two_commands(
    form: dict[str, Any],
    chat_teacher: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("chats.jsonl").write_text("".join(json.dumps(asking(form, number)) + "\n" for number in range(8)))
    assert [command[0] for command in COMMANDS] == ["teacher-dump", "student-train"]
    for name, *options in COMMANDS:
        given = [str(chat_teacher) if option == "smollm2-135m" else option for option in options]
        result = CliRunner().invoke(MAIN[name], [*given, *SMALL[name]], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    conversations = [parse_messages(info.messages) for chunk in shards.open("shards/") for info in chunk.rows]
    assert sorted(messages[0]["content"] for messages in conversations) == [f"Reverse string {n}." for n in range(8)]
    record = json.loads(Path("ckpt/run.json").read_bytes())
    assert record["train"]["response_tokens"] > 0
    assert Path("ckpt/model.safetensors").exists()
    assert Path("ckpt/chat_template.jinja").read_text() == (chat_teacher / "chat_template.jinja").read_text()


def test_the_page_shows_every_form_of_trl() -> None:
    assert [{key: type(value) for key, value in form.items()} for form in FORMS] == [
        {"messages": list},
        {"prompt": list, "completion": list},
        {"prompt": str, "completion": str},
    ]
