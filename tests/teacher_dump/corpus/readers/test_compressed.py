"""Tests of decompression: a truncated or damaged stream is an error that names the file."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from click.testing import CliRunner

from teacher_dump.cli import main
from teacher_dump.corpus.readers.sources import read
from teacher_dump.errors import DumpError
from tests.teacher_dump.corpus.readers.conftest import COMPRESS, rows


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] if kind in ("xz", "bz2") else []) for kind in (*COMPRESS, "parquet")],
)
@pytest.mark.slow
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


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_a_truncated_source_is_a_one_line_error_of_the_command(kind: str, tiny_teacher: Path, tmp_path: Path) -> None:
    raw = COMPRESS[kind](rows(50))
    (tmp_path / f"t.jsonl.{kind}").write_bytes(raw[: len(raw) // 2])
    arguments = ["--model", str(tiny_teacher), "--data", str(tmp_path / f"t.jsonl.{kind}")]
    result = CliRunner().invoke(
        main, [*arguments, "--out", str(tmp_path / "o"), "--engine", "transformers", "--prepare"]
    )
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert f"t.jsonl.{kind}: the {kind} stream is truncated" in result.output
