"""Reader of a folder: its tables or its Python sources, never hidden folders.

Files that are not read are counted for the summary of a dump. Links to folders are not followed, so loops of links
end. A pipe, socket or device with the name of a document is listed as dropped and never opened.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from teacher_dump.corpus.document import RawDocument
from teacher_dump.corpus.readers.rows import printable, unusable
from teacher_dump.corpus.readers.table_rows import TABLE_SUFFIXES
from teacher_dump.errors import DumpError

_TEST_FOLDERS = {"test", "tests", "idle_test"}
"""Folders of tests. Their Python files are not read; their tables are read if the corpus holds no sources."""
_PACKAGE_FOLDERS = {"site-packages", "dist-packages", "__pycache__", "node_modules"}
"""Folders that are skipped: they hold installed packages or caches."""


@dataclass(kw_only=True, slots=True)
class FolderListing:
    """The documents of a folder and its subfolders."""

    root: Path
    tables: list[Path] = field(default_factory=list)
    test_tables: list[Path] = field(default_factory=list)
    sources: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    """Paths with the name of a document that cannot be opened, with the reason."""
    not_read: Counter[str] = field(default_factory=Counter)
    """Number of skipped files and folders, by reason."""

    def require_one_kind(self) -> None:
        """Check that the folder does not hold both tables and sources.

        Raises:
            DumpError: It holds both.
        """
        if self.tables and self.sources:
            plural = "s" if len(self.tables) > 1 else ""
            names = ", ".join(printable(str(t.relative_to(self.root))) for t in self.tables[:3])
            raise DumpError(
                f"--data {printable(str(self.root))}: found {len(self.sources):,} Python files and "
                f"{len(self.tables):,} table{plural} ({names}{', ...' if len(self.tables) > 3 else ''}), expected one "
                "kind; give --data the file or subfolder to read, or move the others away"
            )


def list_folder(root: Path) -> FolderListing:
    """List the documents of a folder, in an order that depends on the names alone."""
    listing = FolderListing(root=root)
    _walk(listing)
    if listing.sources and not listing.tables and listing.test_tables:
        listing.not_read["tables in folders of tests, not read"] += len(listing.test_tables)
    else:
        listing.tables += listing.test_tables
    listing.tables.sort()
    listing.sources.sort()
    listing.unreadable.sort()
    return listing


def read_sources(listing: FolderListing, *, source: str, licence: str | None) -> Iterator[RawDocument]:
    """Yield each Python file as a document; an unreadable file becomes a document with a problem."""
    for path in listing.sources:
        name = printable(path.relative_to(listing.root).as_posix())
        try:
            text = path.read_bytes()
        except OSError as error:
            yield unusable("cannot be read", error.strerror or str(error), source=source, path=name)
        else:
            yield RawDocument(text=text, source=source, path=name, licence=licence)


def unreadable_documents(listing: FolderListing, *, source: str) -> Iterator[RawDocument]:
    """Yield a document with a problem for each path that cannot be opened."""
    for path, reason in listing.unreadable:
        name = printable(path.relative_to(listing.root).as_posix())
        yield unusable("cannot be read", reason, source=source, path=name)


def _walk(listing: FolderListing) -> None:
    """Fill a listing."""
    queue = [(listing.root, False)]
    while queue:
        folder, in_tests = queue.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            listing.unreadable.append((folder, f"cannot list the folder ({error.strerror})"))
            continue
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                listing.not_read["hidden files and folders, not read"] += 1
            elif entry.is_dir(follow_symlinks=False):
                if entry.name in _PACKAGE_FOLDERS:
                    listing.not_read["folders of packages, not read"] += 1
                else:
                    queue.append((path, in_tests or entry.name in _TEST_FOLDERS))
            elif entry.name.endswith(TABLE_SUFFIXES) or entry.name.endswith(".py"):
                _add(entry, path, listing, in_tests=in_tests)
            elif entry.is_symlink() and os.path.isdir(path):
                listing.not_read["links to folders, not followed"] += 1
            else:
                listing.not_read["files of other kinds, not read"] += 1


def _add(entry: os.DirEntry[str], path: Path, listing: FolderListing, *, in_tests: bool) -> None:
    """Add a path with the name of a table or a source to the listing."""
    is_table = entry.name.endswith(TABLE_SUFFIXES)
    try:
        is_regular = entry.is_file()
    except OSError:  # a loop of links
        is_regular = False
    if in_tests and not is_table:
        listing.not_read["Python files in folders of tests, not read"] += 1
    elif not is_regular and entry.is_symlink() and os.path.isdir(path):
        listing.not_read["links to folders, not followed"] += 1
    elif not is_regular:
        broken = entry.is_symlink() and not os.path.exists(path)
        listing.unreadable.append((path, "a link that leads nowhere" if broken else "not a regular file"))
    elif is_table:
        (listing.test_tables if in_tests else listing.tables).append(path)
    else:
        listing.sources.append(path)
