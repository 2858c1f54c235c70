"""Tests of the filters of prompts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from teacher_dump.corpus.document import Drop
from teacher_dump.corpus.drop_log import DropLog
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.errors import DumpError
from teacher_dump.writing.prompts.filters import PromptFilter
from teacher_dump.writing.prompts.prompt import RawPrompt, ResponsePrompt, user_message

BENCHMARK_TEXT = "Write a function that counts how many vowels appear in each word of a long sentence of the user"


def raw(text: str, task_id: str, **more: object) -> RawPrompt:
    """Return a prompt of one message."""
    fields = {"source": "s", "path": task_id, "licence": None, **more}
    return RawPrompt(task_id=task_id, messages=user_message(text), **fields)  # type: ignore[arg-type]


def kept(
    tmp_path: Path, *prompts: RawPrompt, decontaminate: str = "none"
) -> tuple[list[ResponsePrompt], Counter[str], list[dict[str, str]]]:
    """Return the prompts that are used, the counts and the list of the others."""
    counts: Counter[str] = Counter()
    log = DropLog()
    used = list(PromptFilter(FilterSettings(decontaminate=decontaminate), counts, log)(prompts))
    log.save(tmp_path)
    return used, counts, [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]


def test_a_conversation_is_used_once_under_its_first_name(tmp_path: Path) -> None:
    used, counts, dropped = kept(tmp_path, raw("a", "1"), raw("a", "2"), raw("b", "3"))
    assert [prompt.task_id for prompt in used] == ["1", "3"]
    assert counts == {"prompts read": 3, "dropped: duplicate": 1}
    assert [(line["path"], line["filter"]) for line in dropped] == [("2", "duplicate")]


@pytest.mark.parametrize("path", ["1", "2"])
def test_two_prompts_of_one_name_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DumpError, match=rf"found the task_id 'x' at s 1 and at s {path}"):
        kept(tmp_path, raw("a", "x", path="1"), raw("b", "x", path=path))


def test_licences_are_checked_where_the_source_has_a_field(tmp_path: Path) -> None:
    prompts = (
        raw("a", "1", licence="MIT"),
        raw("b", "2", licence="GPL-3.0"),
        raw("c", "3", licence=""),
        raw("d", "4"),
    )
    used, counts, _ = kept(tmp_path, *prompts)
    assert [(prompt.task_id, prompt.licence) for prompt in used] == [("1", "MIT"), ("4", "")]
    assert counts["dropped: licence not allowed"] == counts["dropped: licence not stated"] == 1


def test_unusable_rows_are_counted(tmp_path: Path) -> None:
    used, counts, dropped = kept(tmp_path, raw("", "1", problem=Drop("blank", "detail")), raw("a", "2"))
    assert [prompt.task_id for prompt in used] == ["2"]
    assert counts["dropped: blank"] == 1
    assert dropped[0]["detail"] == "detail"


def test_prompts_of_a_test_part_are_dropped_and_those_of_a_training_part_stay(tmp_path: Path) -> None:
    file = tmp_path / "mbpp.jsonl"
    other = "Return the largest prime number that divides the product of all the numbers in the given list"
    rows = [{"task_id": 11, "text": BENCHMARK_TEXT}, {"task_id": 601, "text": other}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    used, counts, _ = kept(
        tmp_path, raw(f"Task: {BENCHMARK_TEXT}.", "1"), raw(other, "2"), decontaminate=f"mbpp={file}"
    )
    assert [prompt.task_id for prompt in used] == ["2"]
    assert counts["dropped: contains mbpp"] == 1
