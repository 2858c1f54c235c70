"""Tests of the prompts of MBPP's training part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from teacher_dump.corpus.filters.benchmark_texts import load_benchmarks
from teacher_dump.errors import DumpError
from teacher_dump.writing.prompts import mbpp
from teacher_dump.writing.prompts.mbpp import part_of, read_mbpp, with_test_split


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file in the layout of the release, of tasks around the borders of the parts."""
    file = tmp_path / "mbpp.jsonl"
    rows = [
        {"text": f"Write {n}.\r\n ", "task_id": n, "test_list": [f"assert f({n}) == 1\r", "assert f(2)"], "code": "x"}
        for n in (1, 10, 11, 510, 511, 600, 601, 974)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(mbpp, "_is_release", lambda path: path == file)
    return file


def test_only_tasks_of_the_part_become_prompts(release: Path) -> None:
    train = list(read_mbpp("mbpp:train", release, is_chat=True))
    assert [prompt.task_id for prompt in train] == ["Mbpp/601", "Mbpp/974"]
    validation = list(read_mbpp("mbpp:validation", release, is_chat=True))
    assert [prompt.task_id for prompt in validation] == ["Mbpp/511", "Mbpp/600"]
    assert train[0].licence == "CC-BY-4.0"


def test_a_chat_model_gets_the_question_of_the_paper_and_a_base_model_a_docstring(release: Path) -> None:
    chat, *_ = read_mbpp("mbpp:train", release, is_chat=True)
    assert chat.messages[0]["content"] == (
        "You are an expert Python programmer, and here is your task: Write 601. Your code should pass these tests:\n\n"
        "assert f(601) == 1\nassert f(2)"
    )
    base, *_ = read_mbpp("mbpp:train", release, is_chat=False)
    assert base.messages[0]["content"] == '"""\nWrite 601.\nassert f(601) == 1\nassert f(2)\n"""'


def test_the_forms_of_the_option_are_parsed() -> None:
    assert part_of("mbpp:train") == ("mbpp:train", None)
    assert part_of("mbpp:validation=a/b.jsonl") == ("mbpp:validation", Path("a/b.jsonl"))
    assert part_of("mbpp:test") is None
    assert part_of("org/name") is None


def test_another_or_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DumpError, match="found no such file, expected MBPP's"):
        list(read_mbpp("mbpp:train", tmp_path / "none.jsonl", is_chat=True))
    (tmp_path / "other.jsonl").write_text("{}\n")
    with pytest.raises(DumpError, match="found another file, expected MBPP's"):
        list(read_mbpp("mbpp:train", tmp_path / "other.jsonl", is_chat=True))


def test_by_default_the_test_split_is_checked_against(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mbpp, "auto_names", lambda: ("humaneval",))
    assert with_test_split("auto", f"mbpp:train={release}") == f"humaneval,mbpp={release}"
    assert with_test_split("auto", "prompts.jsonl") == "auto"
    assert with_test_split("none", f"mbpp:train={release}") == "none"
    monkeypatch.setattr(mbpp, "_downloaded_by_evalkit", lambda: None)
    assert with_test_split("auto", "mbpp:validation").startswith("humaneval,mbpp=hub:google-research-datasets/mbpp@")
    (found,) = load_benchmarks(f"mbpp={release}", scored_only=True)
    assert sorted(problem.name for problem in found.problems) == ["mbpp/11", "mbpp/510"]
