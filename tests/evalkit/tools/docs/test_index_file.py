"""Files of indexes: complete, and refused when damaged, foreign or of another version."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.tools.docs import index_file
from evalkit.tools.docs.entry import DocsEntry
from evalkit.tools.docs.index import DocsIndex
from evalkit.tools.docs.index_file import IndexedName, open_index, write_index
from tests.evalkit.tools.docs.toy_index import NAMES, write_toy_index


def test_the_same_names_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    write_index(tmp_path / "a.db", NAMES, packages=[])
    write_index(tmp_path / "b.db", reversed(NAMES), packages=[])
    assert (tmp_path / "a.db").read_bytes() == (tmp_path / "b.db").read_bytes()


def test_other_sqlite_clients_read_the_file(tmp_path: Path) -> None:
    with closing(sqlite3.connect(write_toy_index(tmp_path))) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) FROM entries").fetchone() == (len(NAMES),)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = write_toy_index(tmp_path)
    content = path.read_bytes()
    for position in random.Random(0).sample(range(len(content)), 200):
        broken = bytearray(content)
        broken[position] ^= 1 << position % 8
        path.write_bytes(broken)
        with pytest.raises(EvalError, match=r"damaged|is not an index|was written by"):
            open_index(path)


@pytest.mark.parametrize("size", [0, 1, 16, 99, 100, 4096, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    path = write_toy_index(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(EvalError, match=r"docs\.db: (the index is damaged|is not an index)"):
        open_index(path)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "docs.db"
    path.write_text("{}")
    with pytest.raises(EvalError, match="is not an index of documentation"):
        open_index(path)
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t(x)")
    with pytest.raises(EvalError, match="is not an index of documentation"):
        open_index(path)


@pytest.mark.parametrize(("version", "age"), [(0, "an older"), (index_file.VERSION + 1, "a newer")])
def test_another_version_is_refused_by_name(tmp_path: Path, version: int, age: str) -> None:
    path = write_toy_index(tmp_path)
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(EvalError, match=f"written by {age} evalkit.*version {version}, expected {index_file.VERSION}"):
        open_index(path)


def test_a_file_with_tables_of_its_own_is_refused(tmp_path: Path) -> None:
    """Its maker may have computed the digest, too."""
    path = write_toy_index(tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("DROP TABLE names")
        database.execute("CREATE VIEW names AS SELECT load_extension('x') AS path, '' AS tail, 1 AS entry")
    content = path.read_bytes()
    begin = content.find(index_file._DIGEST) + len(index_file._DIGEST)
    zeroed = content[:begin] + index_file._ZEROS + content[begin + 64 :]
    path.write_bytes(content[:begin] + index_file._sha256(zeroed) + content[begin + 64 :])
    with pytest.raises(EvalError, match="holds other tables"):
        open_index(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.db", tmp_path):
        with pytest.raises(EvalError, match=r"cannot be read.*index-docs"):
            open_index(path)


def test_text_that_looks_like_the_digest_does_no_harm(tmp_path: Path) -> None:
    text = (index_file._DIGEST + index_file._ZEROS).decode()
    entry = DocsEntry(name="a.b", kind="function", summary=text)
    write_index(tmp_path / "docs.db", [IndexedName(entry=entry, paths=("a.b",), prose=text)], packages=[])
    with DocsIndex.open(tmp_path / "docs.db") as index:
        assert index.search("b", 1) == [entry]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_toy_index(tmp_path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(EvalError, match="cannot be written"):
        write_index(path, NAMES[:1], packages=[])
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]
