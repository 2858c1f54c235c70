"""Local files that appear complete or not at all, and survive a power failure.

A file is written under a temporary name in the same directory, synced, renamed, and its directory is synced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from shards.errors import StoreError
from shards.storage.temp_files import temp_path


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes `path` when the block ends without an exception.

    Missing parent directories are created. After an exception, the temporary file is deleted and `path` is unchanged.

    Args:
        path: File to create or replace.

    Yields:
        The open file, for reading and writing.

    Raises:
        StoreError: If an OSError occurs, inside the block, too: no space, no permission.
    """
    temporary = temp_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        rename_durably(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a whole file. `atomic_writer` describes the guarantees and the errors."""
    with atomic_writer(path) as file:
        file.write(content)


def rename_durably(temporary: Path, path: Path) -> None:
    """Rename a finished, synced file in its directory, and sync the directory."""
    os.replace(temporary, path)
    sync_path(path.parent)


def sync_path(path: Path) -> None:
    """Make the content of a file, or the names in a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_write(path: Path, error: OSError) -> StoreError:
    """Return the error for a file that cannot be written, with its cause and its remedy."""
    remedy = "free some space or check the permissions"
    if error.errno == errno.EROFS:
        remedy = "make that disk writable, or choose another path"
    return StoreError(
        f"{path}: cannot write ({error.strerror or error}); {remedy}, then run again: complete files are kept"
    )


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's content, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
