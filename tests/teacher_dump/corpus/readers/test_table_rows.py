"""Tests of the rows of tables: both kinds of files give the same values, and each bad line is a row with a problem."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from teacher_dump.corpus.readers.table_rows import place, read_rows


def test_parquet_gives_bytes_and_nulls_for_columns_that_are_not_decoded(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    nested = [[{"role": "user", "content": "caf\u00e9"}], None]
    table = {"a": ["x", None], "b": [1, 2], "messages": nested, "words": [["y"], []], "other": [0.5, 0.5]}
    pq.write_table(pa.table({**table, "c": pa.array(["z", "z"]).dictionary_encode()}), file)
    choice = {"a": True, "b": False, "messages": True, "words": True, "c": True}
    first, second = read_rows(file, lambda schema, path: choice)
    content = "caf\u00e9".encode()
    assert first.values == {
        "a": b"x",
        "b": None,
        "messages": [{"role": b"user", "content": content}],
        "words": [b"y"],
        "c": b"z",
    }
    assert second.values == {"a": None, "b": None, "messages": None, "words": [], "c": b"z"}
    assert place(file, second).endswith("t.parquet row 2")


def test_a_bad_line_has_a_problem_and_keeps_its_content(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n[2]\n{"a"\n' + json.dumps({"a": "\u00e9"}).encode() + b"\n")
    rows = list(read_rows(file, lambda schema, path: {}))
    assert [row.number for row in rows] == [0, 1, 2, 3]
    assert [row.values for row in rows] == [{"a": 1}, {}, {}, {"a": "\u00e9"}]
    assert [row.problem.reason if row.problem else "" for row in rows] == ["", "not JSON", "not JSON", ""]
    assert rows[1].content == b"[2]\n"
    assert place(file, rows[2]).endswith("t.jsonl line 3")
