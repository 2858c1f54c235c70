"""The file of an index: SQLite with a version, a digest of all its bytes, and a full-text table.

| table | content |
|---|---|
| `meta` | `sha256`; `packages`: what was read, as JSON |
| `entries` | one row for each public name, in the order of names |
| `names` | every public path of an entry, in lower case, and its last part |
| `words` | FTS5 over words of names, summary, and the rest of the docstring |

The file is complete or absent: it is built in memory and written under a temporary name. Its digest is that of all
bytes with the digest itself as zeros, so a flipped byte anywhere is found. The bytes that were checked are those that
are searched: the database is read into memory.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.outputs.files import replace_file
from evalkit.tools.docs.entry import DocsEntry
from evalkit.tools.docs.words import name_words

VERSION = 1
"""Version of the tables. Another one is refused."""

_APPLICATION = 0x74_6C_64_78
"""SQLite's application id of an index: the bytes `tldx`."""

_MAGIC = b"SQLite format 3\0"
_DIGEST = b"documentation index sha256 "
_ZEROS = b"0" * 64
_TABLES = (
    # The first table: its only page precedes all text, so the first `_DIGEST` in the file is that of this table.
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE entries(id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, signature TEXT NOT NULL, "
    "summary TEXT NOT NULL, parameters TEXT NOT NULL, returns TEXT NOT NULL, examples TEXT NOT NULL)",
    "CREATE TABLE names(path TEXT NOT NULL, tail TEXT NOT NULL, entry INTEGER NOT NULL)",
    "CREATE INDEX names_by_tail ON names(tail)",
    "CREATE VIRTUAL TABLE words USING fts5(name, summary, rest, content='', tokenize='porter unicode61')",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedName:
    """One public name on its way into an index."""

    entry: DocsEntry
    paths: tuple[str, ...]
    """Every public path of the name, `entry.name` among them."""
    prose: str = ""
    """The docstring, for the words in it."""


def write_index(path: Path, names: Iterable[IndexedName], *, packages: list[dict[str, Any]]) -> int:
    """Write an index atomically; return its size in bytes.

    Args:
        path: The file.
        names: All public names.
        packages: What was read, as JSON values.

    Raises:
        EvalError: The file cannot be written, or SQLite has no full-text search.
    """
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.execute(f"PRAGMA application_id = {_APPLICATION}")
        database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("BEGIN")
        for table in _TABLES:
            try:
                database.execute(table)
            except sqlite3.OperationalError as error:
                raise EvalError(f"this Python's SQLite has no full-text search ({error}); use one with FTS5") from error
        meta = {"sha256": (_DIGEST + _ZEROS).decode(), "packages": json.dumps(packages)}
        database.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        for number, name in enumerate(sorted(names, key=lambda name: name.entry.name), start=1):
            _insert(database, number, name)
        database.execute("INSERT INTO words(words) VALUES ('optimize')")
        database.execute("COMMIT")
        content = database.serialize()
    content = content.replace(_DIGEST + _ZEROS, _DIGEST + _sha256(content), 1)
    try:
        replace_file(path, content)
    except OSError as error:
        raise EvalError(f"{path}: cannot be written ({error.strerror}); name a file in a writable folder") from error
    return len(content)


def _insert(database: sqlite3.Connection, number: int, name: IndexedName) -> None:
    entry = name.entry
    row = (entry.name, entry.kind, entry.signature, entry.summary, json.dumps(entry.parameters), entry.returns)
    database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (number, *row, entry.examples))
    for path in name.paths:
        lowered = path.lower()
        database.execute("INSERT INTO names VALUES (?, ?, ?)", (lowered, lowered.rpartition(".")[2], number))
    words = (name_words(entry.name), entry.summary, name.prose)
    database.execute("INSERT INTO words(rowid, name, summary, rest) VALUES (?, ?, ?, ?)", (number, *words))


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedIndex:
    """A checked index in memory."""

    database: sqlite3.Connection
    sha256: str
    """Digest of the file's content."""
    packages: tuple[dict[str, Any], ...]


def open_index(path: Path) -> OpenedIndex:
    """Read and check an index.

    Raises:
        EvalError: The file is missing, is no index, has another version, or is damaged.
    """
    content = _read(path)
    _check_kind(path, content)
    begin = content.find(_DIGEST) + len(_DIGEST)
    recorded = content[begin : begin + 64]
    actual = _sha256(content[:begin] + _ZEROS + content[begin + 64 :])
    if begin < len(_DIGEST) or recorded != actual:
        raise _damaged(path, "the digest in it is not that of its content")
    database = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        database.deserialize(content)
        database.execute("PRAGMA query_only = ON")
        tables = {sql for (sql,) in database.execute("SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'words_%'")}
        if not set(_TABLES) >= tables - {None}:
            raise EvalError(f"{path}: holds other tables than an index of documentation; {_rebuild()}")
        packages = json.loads(dict(database.execute("SELECT key, value FROM meta"))["packages"])
    except (sqlite3.DatabaseError, KeyError, ValueError) as error:
        database.close()
        raise _damaged(path, str(error)) from error
    except EvalError:
        database.close()
        raise
    return OpenedIndex(database=database, sha256=actual.decode(), packages=tuple(packages))


def _read(path: Path) -> bytes:
    """Return the bytes of a file that begins like an index; the others may be large."""
    try:
        with path.open("rb") as file:
            beginning = file.read(100)
            return beginning + (file.read() if beginning.startswith(_MAGIC) else b"")
    except OSError as error:
        raise EvalError(f"{path}: cannot be read ({error.strerror}); {_rebuild()}") from error


def _check_kind(path: Path, content: bytes) -> None:
    """Read version and application from the header of the SQLite file format (bytes 60 and 68).

    Raises:
        EvalError: The file is another one than an index of this version.
    """
    if not content:
        raise _damaged(path, "it is empty")
    if not content.startswith(_MAGIC) or int.from_bytes(content[68:72]) != _APPLICATION:
        raise EvalError(f"{path}: is not an index of documentation; {_rebuild()}")
    version = int.from_bytes(content[60:64])
    if version != VERSION:
        age = "an older" if version < VERSION else "a newer"
        raise EvalError(f"{path}: was written by {age} evalkit (version {version}, expected {VERSION}); {_rebuild()}")


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _rebuild() -> str:
    return "build one with 'evalkit index-docs PACKAGE... --out FILE'"


def _damaged(path: Path, why: str) -> EvalError:
    return EvalError(f"{path}: the index is damaged ({why}); {_rebuild()}")
