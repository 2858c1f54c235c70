"""Tests of rows: names on one line, columns that are not text, and rows without a text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.readers.rows import printable
from tests.teacher_dump.corpus.readers.conftest import drops, lines


@pytest.mark.parametrize(
    "other",
    [b'"n": "caf\xe9"', b'"n": "\\ud800"', b'"n": 1e999999', b'"n": NaN', b'"content": "a", "path": "caf\xe9.py"'],
)
def test_columns_other_than_the_text_never_drop_a_row(other: bytes, tmp_path: Path) -> None:
    texts, listed, _ = drops(lines(tmp_path, b'{"content": "a", ' + other + b"}"))
    assert (texts, listed) == (["a"], [])


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
