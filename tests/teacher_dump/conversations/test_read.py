"""Tests of the reader of conversations: which corpora hold them, tables of both kinds, hub data sets, bad rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_dump.conversations.read import ConversationRow, holds_conversations, read_conversations
from teacher_dump.errors import DumpError
from tests.teacher_dump.conversations.conftest import answer, question, write_lines

GOOD = {"messages": [question("q"), answer("a")], "task_id": "t", "licence": "MIT"}


def read(path: Path) -> list[ConversationRow]:
    return list(read_conversations(str(path), train_on="last", counts=Counter()))


def test_the_columns_of_the_first_row_decide_what_a_corpus_holds(tmp_path: Path) -> None:
    assert holds_conversations(str(write_lines(tmp_path / "a.jsonl", [b"", b"{", GOOD])))
    assert holds_conversations(str(tmp_path))
    assert not holds_conversations(str(write_lines(tmp_path / "b.jsonl", [{"content": "x"}])))
    assert not holds_conversations(str(write_lines(tmp_path / "c.jsonl", [{**GOOD, "text": "x"}])))
    pq.write_table(pa.table({"prompt": ["q"], "completion": ["a"]}), tmp_path / "d.parquet")
    assert holds_conversations(str(tmp_path / "d.parquet"))
    assert not holds_conversations("stdlib")
    (tmp_path / "e.parquet").write_bytes(b"damaged")
    assert not holds_conversations(str(tmp_path / "e.parquet"))
    with pytest.raises(DumpError, match="found no such file"):
        holds_conversations(str(tmp_path / "nowhere.jsonl"))


def test_jsonl_and_parquet_give_the_same_answers(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "messages": [question("r\u00e9"), answer("b\n")]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    from_lines = read(write_lines(tmp_path / "t.jsonl", rows))
    from_parquet = read(tmp_path / "t.parquet")
    assert [r.answers[0].response for r in from_lines] == ["a", "b\n"]
    for a, b in zip(from_lines, from_parquet, strict=True):
        assert [(x.messages, x.response, x.task_id, x.licence) for x in a.answers] == [
            (x.messages, x.response, x.task_id, x.licence) for x in b.answers
        ]


def test_a_bad_row_is_reported_with_its_place_in_the_order(tmp_path: Path) -> None:
    rows = read(write_lines(tmp_path / "t.jsonl", [GOOD, b"{", {**GOOD, "messages": [question()]}, GOOD]))
    assert [len(row.answers) for row in rows] == [1, 0, 0, 1]
    assert [row.problem.reason if row.problem else "" for row in rows] == [
        "",
        "not JSON",
        "no message of an assistant",
        "",
    ]
    assert [row.task_id for row in rows] == ["t", "", "t", "t"]


def test_one_text_of_parquet_that_is_not_utf8_affects_its_own_row(tmp_path: Path) -> None:
    kind = pa.list_(pa.struct([("role", pa.binary()), ("content", pa.binary())]))
    values = [[{"role": b"user", "content": c}, {"role": b"assistant", "content": b"a"}] for c in (b"caf\xe9", b"q")]
    pq.write_table(pa.table({"messages": pa.array(values, kind)}), tmp_path / "t.parquet")
    bad, good = read(tmp_path / "t.parquet")
    assert bad.problem is not None
    assert bad.problem.reason == "not UTF-8"
    assert good.answers[0].response == "a"


def test_a_corpus_without_any_conversation_is_an_error_that_names_the_first_row(tmp_path: Path) -> None:
    with pytest.raises(
        DumpError, match=r"t\.jsonl line 1: no message of an assistant: user; no row of --data is a con"
    ):
        read(write_lines(tmp_path / "t.jsonl", [{"messages": [question()]}] * 2))
    pq.write_table(pa.table({"other": ["q"]}), tmp_path / "t.parquet")
    with pytest.raises(DumpError, match=r"t\.parquet: found columns other, expected `messages`, or"):
        read(tmp_path / "t.parquet")


def test_a_hub_data_set_of_conversations_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    pq.write_table(pa.Table.from_pylist([{**GOOD, "other": 1}]), tmp_path / "part.parquet")
    real = datasets.load_dataset

    def load(repo: str, config: str | None, **options: Any) -> Any:
        return real(str(tmp_path), split=options["split"], streaming=True)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert holds_conversations("org/chats@1")
    (row,) = read_conversations("org/chats@1", train_on="last", counts=Counter())
    assert (row.answers[0].response, row.origin.source) == ("a", "org/chats")
