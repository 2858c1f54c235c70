"""Tests of rows: TRL's two conventions, answers of a model, and what is no conversation."""

from __future__ import annotations

from typing import Any

import pytest

from shards.format.messages import messages_json
from teacher_dump.conversations.answered import AnsweredConversation
from teacher_dump.conversations.rows import RowOrigin, UnusableRow, answers_of, is_conversation, origin_of
from tests.teacher_dump.conversations.conftest import WRITER, answer, question

ORIGIN = RowOrigin(source="s", path="3", licence=None)


def answers(row: dict[str, Any], train_on: str = "last") -> list[AnsweredConversation]:
    return list(answers_of(row, ORIGIN, train_on=train_on))


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [question("q"), answer("a")]},
        {"messages": [question("q"), answer("a"), question("never answered")]},
        {"prompt": [question("q")], "completion": [answer("a")]},
        {"prompt": "q", "completion": "a"},
        {"prompt": b"q", "completion": b"a"},
        {"prompt": [question("q")], "completion": "a", "messages": None},
        {"messages": [question("q")], "completion": "a"},
        {"messages": [{**question("q"), "name": None, "tool_calls": []}, answer("a")]},
    ],
)
def test_every_convention_gives_the_same_answer(row: dict[str, Any]) -> None:
    (found,) = answers(row)
    assert (found.messages, found.response, found.ended) == (messages_json([question("q")]), "a", True)
    assert (found.generated, found.writer, found.index, found.task_id) == (None, None, None, "")


def test_all_turns_of_the_assistant_are_answers_to_what_is_before_them() -> None:
    messages = [question("q"), answer("a"), question("r"), answer("b")]
    assert [a.response for a in answers({"messages": messages})] == ["b"]
    first, second = answers({"messages": messages}, "all")
    assert (first.messages, first.response) == (messages_json(messages[:1]), "a")
    assert (second.messages, second.response) == (messages_json(messages[:3]), "b")
    history = {"prompt": messages[:3], "completion": messages[3:]}
    assert [a.response for a in answers(history, "all")] == ["b"]


def test_an_answer_of_a_model_keeps_its_ids_and_its_end() -> None:
    row = {
        "messages": [question("q")],
        "completion": "a",
        "prompt_ids": [1, 2],
        "ids": [3],
        "writer": WRITER,
        "finish_reason": "length",
        "task_id": "Mbpp/601",
        "index": 4,
    }
    (found,) = answers(row)
    assert found.generated is not None
    assert (found.generated.prompt_ids, found.generated.ids, found.ended) == ((1, 2), (3,), False)
    assert (found.task_id, found.index) == ("Mbpp/601", 4)
    assert found.writer is not None
    assert (found.writer.name, found.writer.temperature) == ("student", 0.8)
    (unknown,) = answers({**row, "writer": None})
    assert unknown.generated is None  # ids of an unknown tokenizer


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [question()]}, "no message of an assistant"),
        ({"messages": [answer()]}, "nothing before the response"),
        ({"messages": []}, "no conversation"),
        ({"messages": "text"}, "no conversation"),
        ({"messages": [7]}, "no conversation"),
        ({"messages": [{"role": "user"}]}, "no conversation"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, answer()]}, "no conversation"),
        ({"prompt": "q"}, "no conversation"),
        ({"prompt": None, "completion": "a"}, "no conversation"),
        ({"prompt": 7, "completion": "a"}, "no conversation"),
        ({"prompt": "q", "completion": b"caf\xe9"}, "not UTF-8"),
        ({"prompt": "q\udce9", "completion": "a"}, "not UTF-8"),
        ({"prompt": "q\ud800", "completion": "a"}, "lone surrogates"),
        ({"messages": [{**question(), "tool_calls": ["x"]}, answer()]}, "a message with more than role and content"),
        ({"prompt": "q", "completion": "a", "index": -1}, "damaged answer"),
        ({"prompt": "q", "completion": "a", "index": True}, "damaged answer"),
        ({"prompt": "q", "completion": "a", "finish_reason": "eos"}, "damaged answer"),
        ({"prompt": "q", "completion": "a", "writer": "me"}, "damaged answer"),
        ({"prompt": "q", "completion": "a", "writer": {"name": "me"}}, "damaged answer"),
        ({"prompt": "q", "completion": "a", "writer": {**WRITER, "seed": "0"}}, "damaged answer"),
        ({"prompt": "q", "completion": "a", "writer": WRITER, "ids": [], "prompt_ids": [1]}, "damaged answer"),
        ({"prompt": "q", "completion": "a", "writer": WRITER, "ids": [-1], "prompt_ids": [1]}, "damaged answer"),
        ({"prompt": "q", "completion": "a", "writer": WRITER, "ids": ["1"], "prompt_ids": [1]}, "damaged answer"),
    ],
)
def test_a_row_that_is_no_conversation_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableRow) as found:
        answers(row)
    assert found.value.drop.reason == reason


def test_columns_of_conversations() -> None:
    assert is_conversation({"messages": 1})
    assert is_conversation(["completion", "prompt"])
    assert not is_conversation(["prompt", "task_id"])
    assert not is_conversation(["text"])


def test_the_origin_is_the_row_s_or_the_table_s() -> None:
    assert origin_of({}, number=3, source="t.jsonl") == RowOrigin(source="t.jsonl", path="3", licence=None)
    row = {"source": b"set", "path": "a.py", "licence": "MIT"}
    assert origin_of(row, number=3, source="t") == RowOrigin(source="set", path="a.py", licence="MIT")
