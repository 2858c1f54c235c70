"""Tests of the forms that --prompts takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from teacher_dump.corpus.drop_log import DropLog
from teacher_dump.errors import DumpError
from teacher_dump.writing.prompts.sources import (
    pinned,
    portable_prompts,
    prompt_files_sha256,
    read_prompts,
    require_prompts,
)
from tests.teacher_dump.writing.helpers import TEXTS, save_prompts, writing_config


def test_a_table_and_a_folder_of_sources_are_read(tmp_path: Path) -> None:
    config = writing_config(tmp_path, tmp_path / "out")
    file = save_prompts(tmp_path / "p.jsonl")
    found = list(read_prompts(str(file), config, DropLog(), is_chat=True))
    assert [prompt.messages[0]["content"] for prompt in found] == list(TEXTS)
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "a.py").write_text('def f(x):\n    """Return x and do nothing else to it at all."""\n    return x\n')
    found = list(read_prompts(f"signatures:{folder}", config, DropLog(), is_chat=False))
    assert [prompt.task_id for prompt in found] == ["src/a.py:f"]


@pytest.mark.parametrize(
    ("value", "found"), [("none.jsonl", "no such file"), (".", "a folder"), ("a.txt", "a file of another kind")]
)
def test_other_values_are_refused_by_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, found: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DumpError, match=f"--prompts {value}: found {found}, expected a JSONL or parquet file"):
        require_prompts(value)
    with pytest.raises(DumpError):
        require_prompts("signatures:none")


def test_names_and_digests_are_without_paths(tmp_path: Path) -> None:
    file = save_prompts(tmp_path / "p.jsonl")
    assert portable_prompts(str(file)) == "p.jsonl"
    assert portable_prompts(f"signatures:{tmp_path}") == f"signatures:{tmp_path.name}"
    assert portable_prompts("mbpp:train=/a/mbpp.jsonl") == "mbpp:train"
    assert pinned("mbpp:train") == "mbpp:train"
    before = prompt_files_sha256(str(file))
    save_prompts(file, ["another"])
    assert before is not None
    assert prompt_files_sha256(str(file)) not in (None, before)
    assert prompt_files_sha256("mbpp:train") is None
