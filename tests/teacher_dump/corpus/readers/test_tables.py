"""Files as strangers bring them: cut, damaged, of odd names and types. Nothing is lost without a word."""

from __future__ import annotations

import bz2
import datetime
import gzip
import json
import lzma
import os
import random
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from click.testing import CliRunner

from teacher_dump.cli import main
from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.drop_log import DropLog
from teacher_dump.corpus.readers.rows import printable
from teacher_dump.corpus.readers.sources import read
from teacher_dump.errors import DumpError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.compress,
}
GOOD = {"content": "x = 1\n", "path": "good.py"}


def rows(count: int) -> bytes:
    generator = random.Random(0)
    return b"".join(
        json.dumps({"content": f"x_{i} = '{generator.randbytes(40).hex()}'\n"}).encode() + b"\n" for i in range(count)
    )


def lines(folder: Path, *found: dict[str, Any] | bytes, name: str = "t.jsonl") -> Path:
    raw = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in found]
    (folder / name).write_bytes(b"\n".join(raw) + b"\n")
    return folder / name


def drops(data: Path) -> tuple[list[str], list[dict[str, str]], Counter[str]]:
    """Return the texts, the lines of the list of dropped documents, and the counts."""
    dropped = DropLog()
    corpus = Corpus(data=str(data), seed=0, drop_log=dropped)
    texts = [d.text for d in corpus]
    folder = data if data.is_dir() else data.parent
    target = folder.parent / f"{folder.name}-list"
    target.mkdir(exist_ok=True)
    dropped.save(target)
    listed = [json.loads(line) for line in (target / "dropped.jsonl").read_text().splitlines()]
    assert len(listed) == sum(n for k, n in corpus.counts.items() if k.startswith("dropped: "))
    return texts, listed, corpus.counts


@pytest.mark.parametrize("kind", [*COMPRESS, "parquet"])
def test_a_file_cut_anywhere_is_an_error_that_names_it(kind: str, tmp_path: Path) -> None:
    content = rows(400)
    whole = tmp_path / ("t.parquet" if kind == "parquet" else f"t.jsonl.{kind}")
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([json.loads(line) for line in content.splitlines()]), whole)
    else:
        whole.write_bytes(COMPRESS[kind](content))
    raw = whole.read_bytes()
    assert len(list(read(str(whole)))) == 400
    lengths = {0, 1, len(raw) - 1, *random.Random(1).sample(range(len(raw)), 300)}
    for length in sorted(lengths):
        whole.write_bytes(raw[:length])
        with pytest.raises(DumpError, match=rf"t\.{'parquet' if kind == 'parquet' else 'jsonl'}.*whole"):
            list(read(str(whole)))


@pytest.mark.parametrize("kind", COMPRESS)
def test_concatenated_streams_are_one_text_and_a_cut_second_stream_is_an_error(kind: str, tmp_path: Path) -> None:
    first, second = COMPRESS[kind](rows(20)), COMPRESS[kind](rows(30))
    path = tmp_path / f"t.jsonl.{kind}"
    path.write_bytes(first + second)
    assert len(list(read(str(path)))) == 50
    for length in range(1, len(second), 7):
        path.write_bytes(first + second[:length])
        with pytest.raises(DumpError, match="expected a whole file"):
            list(read(str(path)))
    path.write_bytes(first + b"garbage after the stream")
    with pytest.raises(DumpError, match="expected a whole file"):
        list(read(str(path)))


@pytest.mark.parametrize(("kind", "padding"), [("gz", bytes(512)), ("xz", bytes(8))])
def test_padding_that_a_format_allows_is_no_damage(kind: str, padding: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"t.jsonl.{kind}"
    path.write_bytes(COMPRESS[kind](rows(20)) + padding)
    assert len(list(read(str(path)))) == 20


def test_a_skippable_frame_of_zstandard_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.zst"
    frame = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"index"
    path.write_bytes(frame + zstandard.compress(rows(20)) + frame)
    assert len(list(read(str(path)))) == 20


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


@pytest.mark.parametrize(
    "other",
    [b'"n": "caf\xe9"', b'"n": "\\ud800"', b'"n": 1e999999', b'"n": NaN', b'"content": "a", "path": "caf\xe9.py"'],
)
def test_what_is_in_columns_that_are_not_text_never_costs_a_row(other: bytes, tmp_path: Path) -> None:
    texts, listed, _ = drops(lines(tmp_path, b'{"content": "a", ' + other + b"}"))
    assert (texts, listed) == (["a"], [])


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
    ("table", "said"),
    [
        (pa.table({"content": [1, 2]}), "found int64 in column content, expected strings"),
        (pa.table({"x": ["a"]}), "found columns x, expected the text in one of content"),
        (pa.table([["a"], ["b"]], names=["content", "content"]), "found the column content twice"),
        (pa.table({"content": [datetime.datetime(2020, 1, 1)]}), "found timestamp.* expected strings"),
    ],
)
def test_a_parquet_file_without_a_column_of_text_is_refused_by_name(table: pa.Table, said: str, tmp_path: Path) -> None:
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DumpError, match=rf"t\.parquet: {said}"):
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
def test_a_column_of_licences_in_another_form_is_never_taken_for_none(
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


def test_names_that_are_no_unicode_or_hold_control_characters_are_written_on_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for name in (b"caf\xe9.py", b"a\nb.py", "ü.py".encode()):
        (folder / os.fsdecode(name)).write_text(f"x = {len(name)}\n")
    documents = list(Corpus(data=str(folder), seed=0))
    assert {d.path for d in documents} == {"caf\\xe9.py", "a\\x0ab.py", "ü.py"}
    assert printable("\ud800") == "\\xed\\xa0\\x80"
    for document in documents:
        document.path.encode("utf-8")


def test_what_is_no_file_that_can_be_read_is_listed_and_never_opened(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    (folder / "package.py").mkdir(parents=True)
    (folder / "package.py" / "inside.py").write_text("x = 1\n")
    os.mkfifo(folder / "fifo.py")
    (folder / "broken.py").symlink_to("nowhere")
    (folder / "loop.py").symlink_to("loop.py")
    (folder / "up").symlink_to(folder, target_is_directory=True)
    (folder / "up.py").symlink_to(folder, target_is_directory=True)
    (folder / "memory.py").symlink_to("/proc/self/mem")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.py"))
        texts, listed, counts = drops(folder)
    assert texts == ["x = 1\n"]
    assert {line["path"]: line["filter"] for line in listed} == dict.fromkeys(
        ("fifo.py", "broken.py", "loop.py", "memory.py", "socket.py"), "cannot be read"
    )
    assert counts["links to folders, not followed"] == 2


def test_a_folder_with_sources_and_tables_is_refused_with_both_numbers(tmp_path: Path) -> None:
    for i in range(60):
        (tmp_path / f"{i}.py").write_text(f"x = {i}\n")
    lines(tmp_path, GOOD, name="stray.jsonl")
    with pytest.raises(DumpError, match=r"found 60 Python files and 1 table \(stray.jsonl\), expected one kind"):
        list(read(str(tmp_path)))


@pytest.mark.parametrize("hidden", [".git", ".venv", ".cache"])
def test_hidden_folders_are_never_read_and_what_is_left_out_is_counted(hidden: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.js").write_text("x")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "t.py").write_text("y = 1\n")
    (tmp_path / hidden / "deep").mkdir(parents=True)
    lines(tmp_path / hidden / "deep", GOOD)
    (tmp_path / hidden / "b.py").write_text("z = 1\n")
    counts: Counter[str] = Counter()
    assert [r.path for r in read(str(tmp_path), counts)] == ["a.py"]
    assert counts == {
        "hidden files and folders, not read": 1,
        "files of other kinds, not read": 1,
        "Python files in folders of tests, not read": 1,
    }


def test_tables_of_tests_and_of_packages_are_no_mixture(tmp_path: Path) -> None:
    for folder in ("tests/data", "venv/lib/site-packages/pyarrow", "node_modules/x"):
        (tmp_path / folder).mkdir(parents=True)
        lines(tmp_path / folder, GOOD)
    assert [r.path for r in read(str(tmp_path))] == ["good.py"]  # no sources: the table of the tests is the corpus
    (tmp_path / "a.py").write_text("x = 1\n")
    counts: Counter[str] = Counter()
    assert [r.path for r in read(str(tmp_path), counts)] == ["a.py"]
    assert counts == {"folders of packages, not read": 2, "tables in folders of tests, not read": 1}


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_the_command_says_in_one_line_that_its_source_is_cut(kind: str, tiny_teacher: Path, tmp_path: Path) -> None:
    raw = COMPRESS[kind](rows(50))
    (tmp_path / f"t.jsonl.{kind}").write_bytes(raw[: len(raw) // 2])
    arguments = ["--model", str(tiny_teacher), "--data", str(tmp_path / f"t.jsonl.{kind}")]
    done = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "o"), "--engine", "transformers", "--prepare"])
    assert done.exit_code == 1
    assert done.output.count("\n") == 1
    assert f"t.jsonl.{kind}: the {kind} stream is truncated" in done.output


def test_a_source_that_cannot_be_read_is_not_called_a_full_disk(
    tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from teacher_dump.corpus.readers import sources

    def fails(*_: Any) -> Any:
        raise OSError(5, "Input/output error", "/corpus/a.py")
        yield

    (tmp_path / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(sources, "read", fails)
    arguments = ["--model", str(tiny_teacher), "--data", str(tmp_path), "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(main, [*arguments, "--engine", "transformers", "--prepare", "--decontaminate", "none"])
    assert done.exit_code == 1
    assert done.output == (
        "error: /corpus/a.py: cannot read the corpus (Input/output error); check the file and your permissions\n"
    )
