"""Choose the files of a folder that are read as a corpus: tables or Python sources, never hidden folders.

What is not read is counted, so that the summary of a dump can say it. Links to folders are not followed, so a loop of
links ends; what is no regular file (a pipe, a socket, a device) is listed and never opened.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from teacher_dump.corpus.readers.raw import Raw, bad, printable
from teacher_dump.corpus.readers.tables import ENDINGS
from teacher_dump.errors import DumpError

_TESTS = {"test", "tests", "idle_test"}
"""Folders whose Python files are not read. Their tables are read where the folder holds no sources."""
_PACKAGES = {"site-packages", "dist-packages", "__pycache__", "node_modules"}
"""Folders that are not entered: what is in them is somebody else's."""


@dataclass(kw_only=True, slots=True)
class Listing:
    """The files in a folder and the folders in it."""

    root: Path
    tables: list[Path] = field(default_factory=list)
    tables_of_tests: list[Path] = field(default_factory=list)
    sources: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    """What would be read, but cannot be, with the reason."""
    not_read: Counter[str] = field(default_factory=Counter)
    """Number of files and folders that are left out, by reason."""

    def require_one_kind(self) -> None:
        """Raise DumpError where the folder holds both tables and sources."""
        if self.tables and self.sources:
            plural = "s" if len(self.tables) > 1 else ""
            names = ", ".join(printable(str(t.relative_to(self.root))) for t in self.tables[:3])
            raise DumpError(
                f"--data {printable(str(self.root))}: found {len(self.sources):,} Python files and "
                f"{len(self.tables):,} table{plural} ({names}{', ...' if len(self.tables) > 3 else ''}), expected one "
                "kind; name the file or the folder that you mean, or move the others away"
            )


def list_folder(root: Path) -> Listing:
    """Return what a folder holds, in an order that depends on names alone."""
    listing = Listing(root=root)
    _walk(root, listing, ours=True)
    if listing.sources and not listing.tables and listing.tables_of_tests:
        listing.not_read["tables in folders of tests, not read"] += len(listing.tables_of_tests)
    else:
        listing.tables += listing.tables_of_tests
    listing.tables.sort()
    listing.sources.sort()
    listing.unreadable.sort()
    return listing


def _walk(folder: Path, listing: Listing, *, ours: bool) -> None:
    waiting = [(folder, ours)]
    while waiting:
        place, ours = waiting.pop()
        try:
            entries = list(os.scandir(place))
        except OSError as error:
            listing.unreadable.append((place, f"cannot list the folder ({error.strerror})"))
            continue
        for entry in entries:
            path = place / entry.name
            if entry.name.startswith("."):
                listing.not_read["hidden files and folders, not read"] += 1
            elif entry.is_dir(follow_symlinks=False):
                if entry.name in _PACKAGES:
                    listing.not_read["folders of packages, not read"] += 1
                else:
                    waiting.append((path, ours and entry.name not in _TESTS))
            elif entry.name.endswith(ENDINGS) or entry.name.endswith(".py"):
                _place(entry, path, listing, ours=ours)
            elif entry.is_symlink() and os.path.isdir(path):
                listing.not_read["links to folders, not followed"] += 1
            else:
                listing.not_read["files of other kinds, not read"] += 1


def _place(entry: os.DirEntry[str], path: Path, listing: Listing, *, ours: bool) -> None:
    """Add a file with the name of a table or a source to the listing."""
    is_table = entry.name.endswith(ENDINGS)
    try:
        regular = entry.is_file()
    except OSError:  # a loop of links
        regular = False
    if not is_table and not ours:
        listing.not_read["Python files in folders of tests, not read"] += 1
    elif not regular and entry.is_symlink() and os.path.isdir(path):
        listing.not_read["links to folders, not followed"] += 1
    elif not regular:
        broken = entry.is_symlink() and not os.path.exists(path)
        listing.unreadable.append((path, "a link that leads nowhere" if broken else "not a regular file"))
    else:
        tables = listing.tables if ours else listing.tables_of_tests
        (tables if is_table else listing.sources).append(path)


def read_sources(listing: Listing, *, source: str, licence: str | None) -> Iterator[Raw]:
    """Yield each Python file as a document; one that cannot be read is yielded with its problem."""
    for path in listing.sources:
        name = printable(path.relative_to(listing.root).as_posix())
        try:
            text = path.read_bytes()
        except OSError as error:
            yield bad("cannot be read", error.strerror or str(error), source=source, path=name)
        else:
            yield Raw(text=text, source=source, path=name, licence=licence)


def unreadable(listing: Listing, *, source: str) -> Iterator[Raw]:
    """Yield what has the name of a document but cannot be opened, each with its problem."""
    for path, why in listing.unreadable:
        yield bad("cannot be read", why, source=source, path=printable(path.relative_to(listing.root).as_posix()))
