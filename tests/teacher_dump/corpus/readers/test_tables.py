"""Tests of JSONL and parquet tables: damage is an error, a bad row is dropped, counted and listed."""

from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.readers.sources import read
from teacher_dump.errors import DumpError
from tests.teacher_dump.corpus.readers.conftest import COMPRESS, GOOD, drops, lines


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (b'{"content": "caf\xe9 = 1", "path": "bad.py"}', "not UTF-8"),
        (b'{"content": null, "path": "bad.py"}', "no text"),
        (b'{"content": 7}', "no text"),
        (b'{"content": ["x"]}', "no text"),
        (b'{"other": "x"}', "no text"),
        (b'{"content": "x", "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
        (b'{"content": "x", "number": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b'{"content": "x', "not JSON"),
        (b"\x00\x00\x00\x00", "not JSON"),
        (b"[1]", "not JSON"),
        (b"7", "not JSON"),
        (b"null", "not JSON"),
        (b'{"content": "\\ud800 = 1"}', "lone surrogates"),
    ],
)
def test_one_bad_row_is_dropped_counted_and_listed(row: bytes, why: str, tmp_path: Path) -> None:
    for kind in ("", ".gz", ".zst"):
        path = lines(tmp_path, GOOD, row, {"content": "y = 2\n"})
        if kind:
            path.with_name(f"t.jsonl{kind}").write_bytes(COMPRESS[kind[1:]](path.read_bytes()))
        texts, listed, counts = drops(path.with_name(f"t.jsonl{kind}"))
        assert sorted(texts) == ["x = 1\n", "y = 2\n"]
        assert [line["filter"] for line in listed] == [why]
        assert counts[f"dropped: {why}"] == 1
        assert counts["documents read"] == 3


def test_a_table_in_which_no_row_has_a_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DumpError, match=r"t\.jsonl line 1: no text: content is null; no row of --data has a text"):
        list(read(str(lines(tmp_path, {"content": None}, {"content": None}))))


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    path = lines(tmp_path, b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), {"content": "\ufeffy"})
    texts, listed, _ = drops(path)
    assert (sorted(texts), listed) == (["x = 1\n", "\ufeffy"], [])


def test_only_columns_that_are_used_are_read_from_parquet(tmp_path: Path) -> None:
    year_10000 = pa.array([253_402_300_800_000_000 * 2] * 2, pa.timestamp("us"))
    table = pa.table({"content": ["a", "b"], "date": year_10000, "path": ["1.py", "2.py"]})
    with pytest.raises((ValueError, OverflowError)):
        table.to_pylist()
    pq.write_table(table, tmp_path / "t.parquet")
    texts, listed, _ = drops(tmp_path / "t.parquet")
    assert (sorted(texts), listed) == (["a", "b"], [])


def test_rows_of_parquet_that_are_null_or_no_utf8_are_dropped_alone(tmp_path: Path) -> None:
    raw = pa.array([b"a", None, b"caf\xe9", b"b"], pa.binary())
    offsets, data = raw.buffers()[1:]
    no_utf8 = pa.Array.from_buffers(pa.string(), 4, [raw.buffers()[0], offsets, data])
    licences = pa.array([["MIT", "ISC"], None, [], [None]], pa.list_(pa.string()))
    for column in (raw, no_utf8, raw.dictionary_encode()):
        pq.write_table(pa.table({"content": column, "licenses": licences}), tmp_path / "t.parquet")
        texts, listed, _ = drops(tmp_path / "t.parquet")
        assert sorted(texts) == ["a", "b"]
        assert sorted(line["filter"] for line in listed) == ["no text", "not UTF-8"]
        found = {str(r.text): r.licence for r in read(str(tmp_path / "t.parquet"))}
        assert found["b'a'"] == "MIT AND ISC"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"content": [1, 2]}), "found int64 in column content, expected strings"),
        (pa.table({"x": ["a"]}), "found columns x, expected the text in one of content"),
        (pa.table([["a"], ["b"]], names=["content", "content"]), "found the column content twice"),
        (pa.table({"content": [datetime.datetime(2020, 1, 1)]}), "found timestamp.* expected strings"),
    ],
)
def test_a_parquet_file_without_a_column_of_text_is_refused_by_name(
    table: pa.Table, message: str, tmp_path: Path
) -> None:
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DumpError, match=rf"t\.parquet: {message}"):
        list(read(str(tmp_path / "t.parquet")))


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (pa.array([["MIT"], ["ISC"]], pa.list_(pa.string(), 1)), ["MIT", "ISC"]),
        (pa.array([["MIT"], []], pa.list_(pa.dictionary(pa.int8(), pa.string()))), ["MIT", ""]),
        (pa.array([{"id": "GPL-3.0"}, {"id": "MIT"}]), ["", ""]),
        (pa.array([[("id", "MIT")]] * 2, pa.map_(pa.string(), pa.string())), ["", ""]),
    ],
)
def test_a_licence_column_of_another_type_never_counts_as_missing(
    licences: pa.Array, expected: list[str], tmp_path: Path
) -> None:
    pq.write_table(pa.table({"content": ["a", "b"], "licenses": licences}), tmp_path / "t.parquet")
    assert [r.licence for r in read(str(tmp_path / "t.parquet"))] == expected


def test_texts_of_every_string_type_of_arrow_are_read(tmp_path: Path) -> None:
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()):
        pq.write_table(pa.table({"content": pa.array([b"a"], pa.binary()).cast(kind)}), tmp_path / "t.parquet")
        assert [r.text for r in read(str(tmp_path / "t.parquet"))] == [b"a"]


def test_a_later_column_of_text_is_taken_where_the_first_is_of_another_type(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": [1], "text": ["a"]}), tmp_path / "t.parquet")
    assert drops(tmp_path / "t.parquet")[0] == ["a"]


def test_tables_are_read_with_their_columns(tmp_path: Path) -> None:
    rows = [{"content": "x = 1\n", "max_stars_repo_name": "a/b", "path": "x.py", "license": ["MIT", "ISC"]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    with gzip.open(tmp_path / "t.jsonl.gz", "wt") as file:
        file.write(json.dumps(rows[0]) + "\n\n")
    (tmp_path / "t.jsonl.zst").write_bytes(zstandard.compress(json.dumps(rows[0]).encode()))
    for name in ("t.parquet", "t.jsonl.gz", "t.jsonl.zst"):
        (document,) = Corpus(data=str(tmp_path / name), seed=0)
        assert (document.source, document.path, document.licence) == ("a/b", "x.py", "MIT AND ISC")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "line 1: not JSON"), ("[1]", "found list"), ('{"a": 1}', "found columns a"), ("", "")],
)
def test_a_bad_table_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    if message:
        with pytest.raises(DumpError, match=message):
            list(Corpus(data=str(path), seed=0))
    else:
        assert list(Corpus(data=str(path), seed=0)) == []
