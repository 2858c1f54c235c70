"""Tests of local files that appear complete or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from shards.errors import StoreError
from shards.storage.atomic import atomic_writer, file_sha256, write_atomic


def test_a_file_that_is_written_whole_leaves_no_other(tmp_path: Path) -> None:
    write_atomic(tmp_path / "below" / "a.json", b"1")
    write_atomic(tmp_path / "below" / "a.json", b"2")
    assert [(f.name, f.read_bytes()) for f in (tmp_path / "below").iterdir()] == [("a.json", b"2")]


def test_a_failed_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"old")
    with pytest.raises(KeyError), atomic_writer(path) as file:
        file.write(b"new")
        raise KeyError
    assert [f.name for f in tmp_path.iterdir()] == ["a"]
    assert path.read_bytes() == b"old"
    assert file_sha256(path) == hashlib.sha256(b"old").hexdigest()


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        write_atomic(tmp_path / "file" / "below", b"")
