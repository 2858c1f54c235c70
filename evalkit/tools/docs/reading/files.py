"""Walk through the files of a package that may be damaged or hostile, and read their text.

A module that cannot be read is a problem that the caller reports; the others are read all the same. Left out without a
word: tests, hidden files, and names that cannot be imported.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from evalkit.tools.docs.reading.package import Package

MAX_FILE_BYTES = 4 << 20
"""A larger source is skipped: it is data."""
MAX_DEPTH = 24
"""Packages inside each other."""

_COMPILED = tuple(importlib.machinery.EXTENSION_SUFFIXES)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A module of a package."""

    module: str
    """Its full name."""
    path: Path


@dataclass(kw_only=True, slots=True)
class PackageFiles:
    """The modules of one package, and what could not be read."""

    sources: list[SourceFile] = field(default_factory=list)
    """Modules with source or, without one, a stub; a package before its modules."""
    compiled: list[str] = field(default_factory=list)
    """Full names of compiled modules."""
    problems: list[str] = field(default_factory=list)
    """One line for each file or folder that was skipped."""


class SkippedFileError(ValueError):
    """A file cannot be read; the text is the reason."""


def list_files(package: Package) -> PackageFiles:
    """Return the modules of a package; none for a module without a file."""
    found = PackageFiles()
    if package.path is None:
        return found
    if package.path.is_file():
        if package.path.name.endswith(_COMPILED):
            found.compiled.append(package.name)
        else:
            found.sources.append(SourceFile(module=package.name, path=package.path))
        return found
    _walk(package.path, package.name, found, visited={os.path.realpath(package.path)})
    return found


def _walk(folder: Path, name: str, found: PackageFiles, *, visited: set[str]) -> None:
    """Add the modules of the package `name` in `folder`; `visited` holds the real paths of its folders so far."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        found.problems.append(f"{folder}: cannot be read ({error.strerror})")
        return
    for module, path in sorted(_modules(entries).items(), key=lambda item: (item[0] != "__init__", item[0])):
        full = name if module == "__init__" else f"{name}.{module}"
        if path.name.endswith(_COMPILED):
            found.compiled.append(full)
        else:
            found.sources.append(SourceFile(module=full, path=path))
    for inner in _folders(entries):
        real = os.path.realpath(inner)
        if real in visited or name.count(".") >= MAX_DEPTH:
            found.problems.append(f"{inner}: skipped, {'a loop of links' if real in visited else 'too deep'}")
            continue
        visited.add(real)
        _walk(inner, f"{name}.{inner.name}", found, visited=visited)


def _modules(entries: list[os.DirEntry[str]]) -> dict[str, Path]:
    """Return the files of modules by name: the source, else the stub, else the compiled file."""
    best: dict[str, Path] = {}
    for suffix in (".py", ".pyi", *_COMPILED):
        for entry in entries:
            module = entry.name.removesuffix(suffix)
            if module != entry.name and module.isidentifier() and not _is_test(module):
                best.setdefault(module, Path(entry.path))
    return best


def _folders(entries: list[os.DirEntry[str]]) -> Iterator[Path]:
    """Yield the folders of packages; a link that leads nowhere is none."""
    for entry in entries:
        if entry.name.isidentifier() and entry.name != "__pycache__" and not _is_test(entry.name):
            with contextlib.suppress(OSError):
                if entry.is_dir():
                    yield Path(entry.path)


def _is_test(name: str) -> bool:
    return name in ("tests", "test", "conftest") or name.startswith("test_")


def read_source(path: Path) -> str:
    """Return the text of a source file, decoded as Python decodes it.

    Raises:
        SkippedFileError: It is too large, no regular file, not text, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not block
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SkippedFileError("is no regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise SkippedFileError(
                    f"has {status.st_size / 1e6:,.0f} MB, at most {MAX_FILE_BYTES / 1e6:.0f} are read"
                )
            content = file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise SkippedFileError(f"cannot be read ({error.strerror})") from error
    if b"\0" in content:
        raise SkippedFileError("holds a NUL byte")
    try:
        return importlib.util.decode_source(content)
    except (SyntaxError, UnicodeError, LookupError) as error:
        raise SkippedFileError(f"is not text ({error})") from error
