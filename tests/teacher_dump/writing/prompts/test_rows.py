"""Tests of the rows that hold prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_dump.errors import DumpError
from teacher_dump.writing.prompts.prompt import RawPrompt
from teacher_dump.writing.prompts.rows import read_prompt_table

USER = {"role": "user", "content": "q \u2713"}
SYSTEM = {"role": "system", "content": "s"}
ASSISTANT = {"role": "assistant", "content": "a"}


def read(tmp_path: Path, *rows: Any, kind: str = "jsonl") -> list[RawPrompt]:
    """Return the prompts of a table with these rows."""
    file = tmp_path / f"p.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), file)
    else:
        file.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return list(read_prompt_table(file))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"prompt": "q \u2713"}, [USER]),
        ({"prompt": [SYSTEM, USER]}, [SYSTEM, USER]),
        ({"messages": [SYSTEM, USER]}, [SYSTEM, USER]),
        ({"messages": [USER, ASSISTANT]}, [USER]),
        ({"messages": [USER, ASSISTANT, USER, ASSISTANT]}, [USER, ASSISTANT, USER]),
        ({"prompt": [USER], "completion": [ASSISTANT]}, [USER]),
    ],
)
def test_both_conventions_are_read(tmp_path: Path, kind: str, row: Any, messages: list[Any]) -> None:
    (prompt,) = read(tmp_path, row, kind=kind)
    assert prompt.problem is None
    assert list(prompt.messages) == messages
    assert (prompt.task_id, prompt.source, prompt.path, prompt.licence) == ("0", f"p.{kind}", "0", None)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_origin_and_licence_are_read(tmp_path: Path, kind: str) -> None:
    row = {"prompt": "q", "task_id": "T/1", "repo_name": "a/b", "path": "x.py", "license": ["MIT", "ISC"]}
    (prompt,) = read(tmp_path, row, kind=kind)
    assert (prompt.task_id, prompt.source, prompt.path, prompt.licence) == ("T/1", "a/b", "x.py", "MIT AND ISC")
    (numbered,) = read(tmp_path, {"prompt": "q", "task_id": 7}, kind=kind)
    assert numbered.task_id == "7"


@pytest.mark.parametrize(
    "row",
    [
        {"x": 1},
        {"prompt": None},
        {"prompt": 3},
        {"prompt": []},
        {"prompt": " \n"},
        {"messages": [ASSISTANT]},
        {"messages": ["q"]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": "q", "tool_calls": [1]}]},
        {"prompt": "\ud800"},
        [1],
        "{\n",
        "\x00\n",
        "[" * 50_000 + "\n",
    ],
)
def test_a_row_without_a_prompt_is_a_problem_and_not_the_end(tmp_path: Path, row: Any) -> None:
    bad, good = read(tmp_path, row, {"prompt": "q"})
    assert bad.problem is not None
    assert bad.messages == ()
    assert good.problem is None
    with pytest.raises(DumpError, match=r"p\.jsonl line 1: .*no row of --prompts can be used: expected `prompt`"):
        read(tmp_path, row)


def test_a_table_without_the_columns_or_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DumpError, match="found columns text, expected `prompt`"):
        read(tmp_path, {"text": "q"}, kind="parquet")
    file = tmp_path / "cut.parquet"
    file.write_bytes((tmp_path / "p.parquet").read_bytes()[:-9])
    with pytest.raises(DumpError, match="parquet"):
        list(read_prompt_table(file))
