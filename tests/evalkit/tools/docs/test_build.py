"""Builds of indexes: progress, records and errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.tools.docs.build import build_index
from evalkit.tools.docs.index import DocsIndex
from tests.evalkit.tools.docs.reading.packages import Notes, write_package


def test_progress_and_the_record_of_packages(tmp_path: Path) -> None:
    one = write_package(tmp_path / "one", a="def f(): 'Do it.'\n", b="def f(:\n")
    two = write_package(tmp_path / "two")
    notes = Notes()
    build_index([str(one), str(two), str(one)], tmp_path / "docs.db", notes)
    assert notes.notes == ["reading one: 3", "reading two: 1"]
    assert notes.steps == 4
    with DocsIndex.open(tmp_path / "docs.db") as index:
        assert index.to_dict()["packages"] == [
            {"name": "one", "version": "", "names": 3, "files": 2, "imported": 0, "skipped": 1},
            {"name": "two", "version": "", "names": 1, "files": 1, "imported": 0, "skipped": 0},
        ]
    assert str(tmp_path).encode() not in (tmp_path / "docs.db").read_bytes()


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "one", a="def f(): 'Do it.'\nclass C:\n    def m(self): ...\n")
    contents = set()
    for name in ("a.db", "b.db"):
        build_index([str(folder)], tmp_path / name, Notes())
        contents.add((tmp_path / name).read_bytes())
    assert len(contents) == 1


def test_nothing_public_is_an_error_that_names_what_was_skipped(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "one", __init__="def f(:\n")
    (folder / "__init__.py").rename(folder / "broken.py")
    (tmp_path / "docs.db").write_bytes(b"old")
    with pytest.raises(EvalError, match=r"no public name was found; skipped: .*broken\.py"):
        build_index([str(folder / "broken.py")], tmp_path / "docs.db", Notes())
    assert (tmp_path / "docs.db").read_bytes() == b"old"


def test_the_output_is_checked_first(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="is a folder, expected the name of a file"):
        build_index(["json"], tmp_path, Notes())
