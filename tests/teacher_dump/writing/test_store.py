"""Tests of the responses on disk: complete or absent, and never damaged unnoticed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from shards.errors import StoreError
from shards.format.manifest import Writer
from teacher_dump.errors import DumpError
from teacher_dump.writing.store import ResponseStore
from teacher_dump.writing.task import WritingTask, WrittenResponse, group_prompts, response_seed
from tests.teacher_dump.writing.helpers import prompt, request

PROMPTS = [prompt(f"question {n} \u2713", str(n)) for n in range(4)]
TASKS = list(group_prompts(PROMPTS, samples=2, answers_per_task=4, fingerprint="f"))
WRITER = Writer(
    name="w",
    revision="",
    weights_sha256="0" * 64,
    tokenizer="1" * 64,
    temperature=1.0,
    top_p=1.0,
    max_new_tokens=8,
    seed=0,
)


def responses(task: WritingTask, text: str = "ok\n\u2713") -> list[WrittenResponse]:
    """Return the responses of a task."""
    return [
        WrittenResponse(
            request=request([1, 2], index=i, seed=response_seed(0, p.document, i), task_id=p.task_id),
            ids=(5, 6),
            text=text,
            finish_reason="stop",
            logprob=-1.5,
        )
        for p in task.prompts
        for i in range(2)
    ]


@pytest.fixture
def store(tmp_path: Path) -> ResponseStore:
    """Return a store with the responses of all tasks, not yet joined."""
    store = ResponseStore(tmp_path)
    for task in TASKS:
        store.save(task, responses(task), WRITER)
    return store


def test_joined_responses_are_in_the_order_of_the_prompts(store: ResponseStore) -> None:
    assert not store.is_complete
    store.complete(TASKS)
    assert store.is_complete
    found = list(store.lines())
    assert [(line["task_id"], line["index"]) for line in found] == [(str(n), i) for n in range(4) for i in range(2)]
    assert {line["completion"] for line in found} == {"ok\n\u2713"}
    assert all(Writer(**line["writer"]) == WRITER for line in found)
    assert list(store.folder.iterdir()) == []


@pytest.mark.slow
def test_no_flip_of_a_bit_in_a_task_is_unnoticed(store: ResponseStore) -> None:
    path = store.folder / TASKS[0].name
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        for bit in (0, 5):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            assert not store.is_written(TASKS[0]), (place, bit)
    for length in range(0, len(content), 11):
        path.write_bytes(content[:length])
        assert not store.is_written(TASKS[0])
    path.write_bytes(content)
    assert store.is_written(TASKS[0])


def test_a_task_of_another_size_is_not_taken_for_the_same(store: ResponseStore) -> None:
    (longer,) = group_prompts(PROMPTS[:2], samples=3, answers_per_task=6, fingerprint="f")
    (store.folder / longer.name).write_bytes((store.folder / TASKS[0].name).read_bytes())
    assert not store.is_written(longer)


def test_the_first_sound_file_of_a_task_stays(store: ResponseStore) -> None:
    path = store.folder / TASKS[0].name
    before = path.read_bytes()
    store.save(TASKS[0], responses(TASKS[0], text="other"), WRITER)
    assert path.read_bytes() == before
    path.write_bytes(before[:-3])
    store.save(TASKS[0], responses(TASKS[0], text="other"), WRITER)
    assert b"other" in path.read_bytes()


def test_damage_before_joining_is_an_error_and_the_task_is_written_again(store: ResponseStore) -> None:
    path = store.folder / TASKS[1].name
    path.write_bytes(path.read_bytes().replace(b"ok", b"no", 1))
    with pytest.raises(DumpError, match="changed after they were written"):
        store.complete(TASKS)
    assert not store.is_complete
    assert not path.exists()
    assert store.is_written(TASKS[0])


def test_the_plan_and_the_prompts_are_read_back(store: ResponseStore) -> None:
    saved = store.save_plan({"a": 1}, PROMPTS, Counter(x=2), longest_prompt=9)
    plan = store.read_plan()
    assert plan == saved
    assert plan["identity"] == {"a": 1}
    assert plan["counts"] == {"x": 2}
    assert plan["longest_prompt"] == 9
    assert store.read_prompts(plan) == PROMPTS


def test_a_damaged_plan_or_list_of_prompts_counts_as_missing(store: ResponseStore) -> None:
    plan = store.save_plan({"a": 1}, PROMPTS, Counter(), longest_prompt=9)
    list_path = store.folder / "prompts.jsonl"
    list_path.write_bytes(list_path.read_bytes().replace(b"question 1", b"question 7"))
    assert store.read_prompts(plan) is None
    plan_path = store.folder / "plan.json"
    plan_path.write_text(json.dumps({**json.loads(plan_path.read_text()), "longest_prompt": 8}))
    assert store.read_plan() is None
    plan_path.write_text("[" * 10_000)
    assert store.read_plan() is None


def test_a_disk_that_takes_no_file_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "writing").write_text("a file where the folder belongs")
    with pytest.raises(StoreError, match="cannot write"):
        ResponseStore(tmp_path).save(TASKS[0], responses(TASKS[0]), WRITER)


def test_a_line_that_is_no_response_is_named(store: ResponseStore) -> None:
    store.complete(TASKS)
    with store.responses.open("ab") as file:
        file.write(b"{\n")
    with pytest.raises(DumpError, match="line 9: not a response"):
        list(store.lines())
