"""Tests of the loader of benchmarks: files, folders, compression, and errors that name the source."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import pytest
import zstandard

from teacher_dump.corpus.filters.benchmark_texts import load_benchmarks
from teacher_dump.errors import DumpError


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("mbpp", "expected none, auto, humaneval or NAME=SOURCE"),
        ("mbpp=nowhere.jsonl", "found no such file"),
        ("mbpp=hub:org/name", "found no revision"),
        ("mbpp={empty}", "found no problem"),
        ("mbpp={wrong}", "found columns a"),
        ("mbpp={broken}", "not readable"),
    ],
)
def test_an_unavailable_benchmark_is_an_error_that_names_it(tmp_path: Path, value: str, message: str) -> None:
    for name, text in (("empty", ""), ("wrong", '{"a": 1}'), ("broken", "{")):
        (tmp_path / f"{name}.jsonl").write_text(text)
        value = value.replace(f"{{{name}}}", str(tmp_path / f"{name}.jsonl"))
    with pytest.raises(DumpError, match=message):
        load_benchmarks(value)


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstandard.compress)],
    ids=["gz", "bz2", "xz", "zst"],
)
def test_a_compressed_benchmark_is_read_whole_or_refused(suffix: str, compress: Any, mbpp: Path) -> None:
    folder = mbpp.parent / "packed"
    folder.mkdir()
    file, packed = folder / f"part.jsonl.{suffix}", compress(mbpp.read_bytes())
    file.write_bytes(packed)
    for source in (file, folder):
        assert load_benchmarks(f"mbpp={source}")[0].problems == load_benchmarks(f"mbpp={mbpp}")[0].problems
    for length in (0, 1, 9, len(packed) // 2, len(packed) - 1):
        file.write_bytes(packed[:length])
        with pytest.raises(DumpError, match=rf"^{file}: the {suffix} stream is truncated"):
            load_benchmarks(f"mbpp={folder}")


def test_an_empty_file_of_a_benchmark_of_several_is_refused(mbpp: Path) -> None:
    (mbpp.parent / "empty.jsonl").write_bytes(b"")
    with pytest.raises(DumpError, match=r"empty\.jsonl: found no problem"):
        load_benchmarks(f"mbpp={mbpp.parent}")
