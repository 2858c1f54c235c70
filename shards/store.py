"""Where do bytes live? A folder, a bucket or a web server, behind one small interface that fsspec carries.

Reads are retried with growing, jittered pauses; writes appear whole or not at all.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from shards.errors import IncompleteCacheError, StoreError

ATTEMPTS = 5
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 8.0

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Store:
    """A folder somewhere. `root` is a path or any URL that fsspec knows (s3://, hf://, https://, ...)."""

    root: str
    filesystem: Any
    base: str

    def read(self, name: str) -> bytes:
        """Return the content of a file. Raises IncompleteCacheError where there is none."""
        return self._try(name, lambda: bytes(self.filesystem.cat_file(self._at(name))))

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, or fewer where the file ends: the caller checks its digest."""
        return self._try(
            name, lambda: bytes(self.filesystem.cat_file(self._at(name), start=offset, end=offset + length))
        )

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        return bool(self._try(name, lambda: self.filesystem.exists(self._at(name))))

    def _at(self, name: str) -> str:
        return f"{self.base.rstrip('/')}/{name}"

    def _try(self, name: str, action: Callable[[], _Result]) -> _Result:
        pause = FIRST_PAUSE_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return action()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise IncompleteCacheError(
                    f"{self.root}: found no {name}, expected a complete cache; run teacher-dump again or fetch it"
                ) from None
            except PermissionError as error:
                raise StoreError(f"{self.root}/{name}: {error}; check your access to it") from None
            except Exception as error:
                if attempt == ATTEMPTS:
                    raise StoreError(
                        f"{self.root}/{name}: {type(error).__name__}: {error}; gave up after {ATTEMPTS} attempts, "
                        "check the address and the network"
                    ) from error
                time.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(pause * 2, LONGEST_PAUSE_S)
        raise AssertionError("unreachable")


def open_store(root: str | os.PathLike[str]) -> Store:
    """Return the store at a path or URL. Nothing is read yet. Raises StoreError on an unknown kind of URL."""
    url = os.fspath(root)
    try:
        filesystem, base = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise StoreError(f"{url}: {error}; expected a folder, or a URL whose fsspec package is installed") from None
    return Store(root=url.rstrip("/"), filesystem=filesystem, base=base)


def write_whole(path: Path, content: bytes) -> None:
    """Write a local file so that it appears complete or not at all, and survives a power cut.

    Raises StoreError where there is no room or no right to write.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise cannot_write(path, error) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        publish(Path(temporary), path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Give a finished, synced file its name, and make the name durable."""
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def cannot_write(path: Path, error: OSError) -> StoreError:
    """Return the error that says why a file could not be written and what to do."""
    return StoreError(
        f"{path}: cannot write ({error.strerror or error}); free some room or check the rights, then run again: "
        "what is complete stays"
    )
