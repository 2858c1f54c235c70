"""Where do bytes live? A folder, a bucket or a web server, behind one small interface that fsspec carries.

Every attempt has a time limit where fsspec gives one (its asynchronous filesystems: s3, http, gcs, abfs); failed
attempts are repeated with growing, jittered pauses. A reply that is too short is a failed attempt. Writes appear
whole or not at all: locally by rename, remotely because an object store shows an object only when it is complete.

Not checked here: digests of ranges. The caller has them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from shards.errors import CorruptShardError, IncompleteCacheError, ShardError, StoreError
from shards.storage.temp_files import temporary_beside

ATTEMPTS = 5
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 8.0
ATTEMPT_S = 30.0
"""Time limit of an attempt, beside the time that its bytes need at the slowest rate."""
SLOWEST_BYTES_PER_S = 250_000
"""A transfer slower than this on average counts as stalled."""
UNKNOWN_BYTES = 50_000_000
"""Size that a file is taken to have where it is not known."""
BLOCK_BYTES = 16_000_000
"""Bytes that are read at a time where a file is hashed in place."""

_Result = TypeVar("_Result")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def unwatched(_: int) -> None:
    """Take the number of bytes that moved, and do nothing."""


class _ShortReplyError(Exception):
    """The reply was complete as far as the protocol knows, but holds less than was asked for."""


@dataclass(frozen=True, slots=True)
class Store:
    """A folder somewhere. `root` is a path or any URL that fsspec knows (s3://, hf://, https://, ...)."""

    root: str
    filesystem: Any
    base: str

    @property
    def is_local(self) -> bool:
        """Whether files are on this machine: then a short or wrong answer will not become better by asking again."""
        protocol = self.filesystem.protocol
        return "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def read(self, name: str) -> bytes:
        """Return the content of a file. Raises IncompleteCacheError where there is none."""
        return self._try(name, lambda: bytes(self._once("cat_file", UNKNOWN_BYTES, self._at(name))))

    def read_range(self, name: str, offset: int, length: int, *, where: str = "") -> bytes:
        """Return exactly `length` bytes from `offset`. `where` names the range in messages.

        Raises CorruptShardError where the file ends before.
        """

        def action() -> bytes:
            raw = bytes(self._once("cat_file", length, self._at(name), start=offset, end=offset + length))
            if len(raw) > length:
                raise StoreError(
                    f"{where or self.root}: found {len(raw)} bytes, expected {length}; the server does not answer "
                    "ranged reads: copy the files to this machine, or serve them from an object store"
                )
            if len(raw) < length:
                raise _ShortReplyError(f"found {len(raw)} bytes, expected {length}")
            return raw

        return self._try(name, action, where=where)

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        return self.size(name) is not None

    def size(self, name: str) -> int | None:
        """Return the number of bytes of a file, None where there is none (-1 where the server does not say)."""
        info = self._info(name)
        return None if info is None else (-1 if info.get("size") is None else int(info["size"]))

    def names(self) -> list[str]:
        """Return the names of what lies directly in this folder. Raises StoreError where it cannot be listed."""

        def action() -> list[str]:
            self.filesystem.invalidate_cache()
            return [str(found).rstrip("/").rpartition("/")[2] for found in self._once("ls", 0, self.base, detail=False)]

        return self._try("", action)

    def sha256(self, name: str, *, size: int) -> str:
        """Return the digest of a file of `size` bytes, hex: the hub's own where it keeps one, else by reading it."""
        lfs = (self._info(name) or {}).get("lfs")
        known = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
        if isinstance(known, str):
            return known
        digest = hashlib.sha256()
        for offset in range(0, size, BLOCK_BYTES):
            digest.update(self.read_range(name, offset, min(BLOCK_BYTES, size - offset)))
        return digest.hexdigest()

    def holds(self, name: str, *, size: int, sha256: str) -> bool:
        """Return whether there is such a file with this size and digest."""
        return self.size(name) == size and self.sha256(name, size=size) == sha256

    def put(self, name: str, content: bytes) -> None:
        """Write a small file whole."""
        if self.is_local:
            write_whole(Path(self._at(name)), content)
        else:
            self._try(name, lambda: self._once("pipe_file", len(content), self._at(name), content))

    def upload(self, path: Path, name: str, *, moved: Callable[[int], None] = unwatched) -> None:
        """Copy a local file here, whole. `moved` is called with numbers of bytes, negative where a try failed."""
        size = path.stat().st_size
        meter = _Meter(moved)

        def action() -> None:
            meter.restart()
            self._once("put_file", size, str(path), self._at(name), callback=meter)
            if self.size(name) not in (size, -1):
                raise _ShortReplyError(f"found {self.size(name)} bytes there after {size} were sent")

        if self.is_local:
            _copy_whole(path, Path(self._at(name)))
        else:
            self._try(name, action)
        meter.absolute_update(size)

    def download(
        self, name: str, path: Path, *, size: int, sha256: str, moved: Callable[[int], None] = unwatched
    ) -> None:
        """Copy a file to `path`, which appears complete and with this digest or not at all.

        Raises CorruptShardError where the content is another one (asked twice where it comes over a network).
        """
        temporary = temporary_beside(path)
        meter = _Meter(moved)

        def action() -> None:
            meter.restart()
            self._once("get_file", size, self._at(name), str(temporary), callback=meter)
            if temporary.stat().st_size < size:
                raise _ShortReplyError(f"found {temporary.stat().st_size} bytes, expected {size}")

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(1 if self.is_local else 2):
                self._try(name, action)
                with temporary.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
                    if found == sha256:
                        os.fsync(file.fileno())
                        publish(temporary, path)
                        meter.absolute_update(size)
                        return
        except OSError as error:
            raise cannot_write(path, error) from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise CorruptShardError(
            f"{self.root}/{name}: found sha256 {found[:12]}, the manifest says {sha256[:12]}; the file is damaged "
            "there: publish or dump it again"
        )

    def _info(self, name: str) -> dict[str, Any] | None:
        def action() -> dict[str, Any] | None:
            self.filesystem.invalidate_cache()
            try:
                info: dict[str, Any] = self._once("info", 0, self._at(name))
            except FileNotFoundError:
                return None
            return info if info.get("type", "file") == "file" else None

        return self._try(name, action)

    def _at(self, name: str) -> str:
        return f"{self.base.rstrip('/')}/{name}"

    def _once(self, method: str, num_bytes: int, *args: object, **options: object) -> Any:
        """Call the filesystem once, with a time limit where it is asynchronous."""
        if getattr(self.filesystem, "async_impl", False):
            call = getattr(self.filesystem, f"_{method}")
            limit_s = ATTEMPT_S + num_bytes / SLOWEST_BYTES_PER_S
            return fsspec.asyn.sync(self.filesystem.loop, call, *args, timeout=limit_s, **options)
        return getattr(self.filesystem, method)(*args, **options)

    def _try(self, name: str, action: Callable[[], _Result], *, where: str = "") -> _Result:
        pause = FIRST_PAUSE_S
        where = where or f"{self.root}/{name}"
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return action()
            except ShardError:
                raise
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise IncompleteCacheError(
                    f"{self.root}: found no {name}, expected a complete cache; run teacher-dump again or fetch it"
                ) from None
            except PermissionError as error:
                raise StoreError(f"{where}: {error}; check your access to it") from None
            except NotImplementedError:
                raise StoreError(f"{where}: this kind of URL can only be read; choose a folder or bucket") from None
            except MemoryError:
                raise StoreError(
                    f"{where}: not enough memory on this machine to read it; close other programs, or use a machine "
                    "with more"
                ) from None
            except _ShortReplyError as error:
                if attempt == ATTEMPTS or self.is_local:
                    raise CorruptShardError(
                        f"{where}: {error}; the file is cut short, fetch or dump that shard again"
                    ) from None
            except Exception as error:
                if isinstance(error, OSError) and error.errno in _NO_ROOM:
                    raise
                if getattr(error, "status", None) in (401, 403):  # aiohttp's
                    raise StoreError(f"{where}: {error}; check your access to it") from None
                if attempt == ATTEMPTS:
                    raise StoreError(
                        f"{where}: {type(error).__name__}: {error}; gave up after {ATTEMPTS} attempts, "
                        "check the address and the network, then run again"
                    ) from error
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, LONGEST_PAUSE_S)
        raise AssertionError("unreachable")


class _Meter(fsspec.callbacks.Callback):  # type: ignore[misc]
    """Pass on how many bytes moved; a new attempt takes back what the failed one had counted."""

    def __init__(self, moved: Callable[[int], None]) -> None:
        super().__init__()
        self._moved = moved
        self._counted = 0

    def relative_update(self, inc: int = 1) -> None:
        self._counted += inc
        self._moved(inc)

    def absolute_update(self, value: int) -> None:
        self.relative_update(value - self._counted)

    def restart(self) -> None:
        self.absolute_update(0)


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
    _whole(path, lambda file: file.write(content))


def _copy_whole(source: Path, path: Path) -> None:
    with source.open("rb") as content:
        _whole(path, lambda file: shutil.copyfileobj(content, file, 1 << 20))


def _whole(path: Path, fill: Callable[[Any], object]) -> None:
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def publish(temporary: Path, path: Path) -> None:
    """Give a finished, synced file its name, and make the name durable."""
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def cannot_write(path: Path, error: OSError) -> StoreError:
    """Return the error that says why a file could not be written and what to do."""
    cure = "free some room or check the rights"
    if error.errno == errno.EROFS:
        cure = "make that disk writable, or name another place"
    return StoreError(
        f"{path}: cannot write ({error.strerror or error}); {cure}, then run again: what is complete stays"
    )


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's content, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
