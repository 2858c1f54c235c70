"""Sources of a corpus: the standard library, a folder, table files, a hub data set.

Every source yields its documents one at a time, in an order of its own that is the same on each run. Memory: at most
one batch of a table.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from teacher_dump.corpus.document import RawDocument
from teacher_dump.corpus.readers.folder import list_folder, read_sources, unreadable_documents
from teacher_dump.corpus.readers.hub import is_hub_id, read_hub
from teacher_dump.corpus.readers.rows import printable
from teacher_dump.corpus.readers.tables import read_tables
from teacher_dump.errors import DumpError

STDLIB = "stdlib"
"""Value of --data for the standard library of the running Python."""


def read(data: str, counts: Counter[str] | None = None) -> Iterator[RawDocument]:
    """Yield the documents of a corpus.

    Args:
        data: The value of --data.
        counts: Receives the number of skipped files and folders, by reason.

    Raises:
        DumpError: The corpus cannot be read.
    """
    if data == STDLIB:
        version = ".".join(map(str, sys.version_info[:3]))
        listing = list_folder(Path(sysconfig.get_path("stdlib")))
        return read_sources(listing, source=f"cpython {version}", licence="PSF-2.0")
    if is_hub_id(data):
        return read_hub(data)
    path = Path(data)
    if path.is_dir():
        return _read_folder(path, Counter() if counts is None else counts)
    require_present(data)
    return read_tables([path])


def require_present(data: str) -> None:
    """Check that a local corpus exists, and that a folder holds documents of one kind. No document is read.

    Raises:
        DumpError: It does not.
    """
    path = Path(data)
    if not _is_local(data):
        return
    if path.is_dir():
        listing = list_folder(path)
        listing.require_one_kind()
        if not (listing.tables or listing.sources or listing.unreadable):
            raise DumpError(
                f"--data {printable(data)}: found no usable document (nothing to read), expected at least one; check "
                "the path"
            )
    elif not path.is_file():
        raise DumpError(
            f"--data {printable(data)}: found no such file, expected stdlib, a folder, parquet or JSONL files, or a "
            "hub data set org/name"
        )


def portable_name(data: str) -> str:
    """Return a value of --data without paths of this machine: the last path component of a local corpus."""
    return printable(Path(data).resolve().name) if _is_local(data) else data


def location_sha256(data: str) -> str | None:
    """Return a digest of the path of a local corpus, None for others. It recognises a path without revealing it."""
    if not _is_local(data):
        return None
    return hashlib.sha256(os.fsencode(Path(data).resolve())).hexdigest()


def files_sha256(data: str) -> str | None:
    """Return a digest of the names and sizes of a local corpus's files, None for others and for a missing one.

    It distinguishes folders of the same name without reading their files.
    """
    path = Path(data)
    if not _is_local(data) or not path.exists():
        return None
    listing = list_folder(path) if path.is_dir() else None
    files = [path] if listing is None else sorted([*listing.tables, *listing.sources])
    root = path.parent if listing is None else path
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size if file.exists() else -1
        digest.update(f"{size} {printable(file.relative_to(root).as_posix())}\n".encode())
    return digest.hexdigest()


def _is_local(data: str) -> bool:
    return data != STDLIB and not is_hub_id(data)


def _read_folder(path: Path, counts: Counter[str]) -> Iterator[RawDocument]:
    listing = list_folder(path)
    listing.require_one_kind()
    counts.update(listing.not_read)
    source = printable(path.resolve().name)
    documents = read_tables(listing.tables) if listing.tables else read_sources(listing, source=source, licence=None)
    return chain(unreadable_documents(listing, source=source), documents)
