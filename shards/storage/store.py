"""Files in a directory, a bucket or on a web server, read and written through fsspec with time limits and retries.

Each attempt has a time limit if the filesystem is asynchronous (s3, http, gcs, abfs). Failed attempts are repeated
with growing, jittered pauses. A short reply is a failed attempt. Writes are atomic: local files by rename, remote
objects because an object store shows only complete objects.

Not checked: digests of ranges. The caller knows them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from shards.errors import CorruptShardError, ShardError, StoreError
from shards.storage.atomic import atomic_writer, cannot_write, rename_durably, write_atomic
from shards.storage.final_errors import final_error
from shards.storage.hub import HubCommits
from shards.storage.temp_files import temp_path
from shards.storage.transfer import Meter, OnBytes, Upload, ignore_bytes

ATTEMPTS = 5
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 8.0
ATTEMPT_S = 30.0
"""Time limit of an attempt, in addition to the time for its bytes at the slowest rate."""
SLOWEST_BYTES_PER_S = 250_000
"""Average rate below which a transfer counts as stalled."""
UNKNOWN_BYTES = 50_000_000
"""Assumed size of a file of unknown size."""
BLOCK_BYTES = 16_000_000
"""Bytes per read when a remote file is hashed."""
COPY_BYTES = 1 << 20
"""Bytes per read when a local file is copied."""

_EXTRA_OF_PROTOCOL = {"s3": "s3", "s3a": "s3", "hf": "hub"}
"""Extra that installs the filesystem of a protocol. Others have packages of their own (gcsfs, adlfs)."""

_Result = TypeVar("_Result")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class _ShortReplyError(Exception):
    """A reply that is complete for the protocol but holds fewer bytes than requested."""


@dataclass(frozen=True, slots=True)
class Store:
    """A directory on any filesystem that fsspec supports. Names are relative to it."""

    root: str
    """Path or URL (s3://, hf://, https://, ...), for messages."""
    filesystem: Any
    """The fsspec filesystem."""
    base: str
    """The directory within the filesystem."""

    @property
    def is_local(self) -> bool:
        """Whether files are on this machine, where a repeated read returns the same bytes."""
        protocol = self.filesystem.protocol
        return "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def read(self, name: str, *, num_bytes: int = UNKNOWN_BYTES) -> bytes:
        """Return the content of a file.

        Args:
            name: Name of the file.
            num_bytes: Expected size, for the time limit.

        Raises:
            IncompleteCacheError: If there is no such file.
            StoreError: If the store cannot be reached.
        """
        return self._retry(name, lambda: bytes(self._call("cat_file", num_bytes, self._at(name))))

    def read_range(self, name: str, offset: int, length: int, *, where: str = "") -> bytes:
        """Return a range of a file.

        Args:
            name: Name of the file.
            offset: First byte.
            length: Number of bytes.
            where: Name of the range in error messages; by default the file.

        Raises:
            CorruptShardError: If the file ends before the range does.
            IncompleteCacheError: If there is no such file.
            StoreError: If the store cannot be reached, or does not support ranges.
        """
        # The hub's filesystem reads megabytes ahead otherwise.
        exactly = {"cache_type": "none"} if self.filesystem.protocol == "hf" else {}

        def attempt() -> bytes:
            raw = bytes(self._call("cat_file", length, self._at(name), start=offset, end=offset + length, **exactly))
            if len(raw) > length:
                raise StoreError(
                    f"{where or self.root}: found {len(raw)} bytes, expected {length}; the server does not answer "
                    "ranged reads: copy the files to this machine, or serve them from an object store"
                )
            if len(raw) < length:
                raise _ShortReplyError(f"found {len(raw)} bytes, expected {length}")
            return raw

        return self._retry(name, attempt, where=where)

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        return self.size(name) is not None

    def size(self, name: str) -> int | None:
        """Return the number of bytes of a file, None if there is no such file, -1 if the server reports no size."""
        info = self._info(name)
        return None if info is None else _size_of(info)

    def names(self) -> list[str]:
        """Return the names of the files and directories directly in the store.

        Raises:
            StoreError: If the store cannot be listed.
        """

        def attempt() -> list[str]:
            self.filesystem.invalidate_cache()
            paths = self._call("ls", 0, self.base, detail=False)
            return [str(path).rstrip("/").rpartition("/")[2] for path in paths]

        return self._retry("", attempt)

    def sha256(self, name: str, *, size: int) -> str:
        """Return the digest of a file of `size` bytes, hex.

        A digest that the hub reports is used as it is; otherwise the file is read.
        """
        return self._sha256(name, self._info(name) or {}, size)

    def _sha256(self, name: str, info: dict[str, Any], size: int) -> str:
        lfs = info.get("lfs")
        reported = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
        if isinstance(reported, str):
            return reported
        digest = hashlib.sha256()
        for offset in range(0, size, BLOCK_BYTES):
            digest.update(self.read_range(name, offset, min(BLOCK_BYTES, size - offset)))
        return digest.hexdigest()

    def holds(self, name: str, *, size: int, sha256: str) -> bool:
        """Return whether there is a file with this name, size and digest."""
        info = self._info(name)
        return info is not None and _size_of(info) == size and self._sha256(name, info, size) == sha256

    def put(self, name: str, content: bytes) -> None:
        """Write a small file atomically.

        Raises:
            StoreError: If it cannot be written.
        """
        if self.is_local:
            write_atomic(Path(self._at(name)), content)
        else:
            self._retry(name, lambda: self._call("pipe_file", len(content), self._at(name), content))

    def upload(self, path: Path, name: str, *, on_bytes: OnBytes = ignore_bytes) -> None:
        """Copy a local file to the store atomically.

        Raises:
            StoreError: If it cannot be written.
        """
        size = path.stat().st_size
        meter = Meter(on_bytes)

        def attempt() -> None:
            meter.restart()
            self._call("put_file", size, str(path), self._at(name), callback=meter)
            if self.size(name) not in (size, -1):
                raise _ShortReplyError(f"found {self.size(name)} bytes there after {size} were sent")

        if self.is_local:
            with path.open("rb") as source, atomic_writer(Path(self._at(name))) as target:
                shutil.copyfileobj(source, target, COPY_BYTES)
        else:
            self._retry(name, attempt)
        meter.absolute_update(size)

    @contextmanager
    def uploads(self) -> Iterator[Upload]:
        """Yield a function as `upload`, for many files.

        In a repository of the hub the files appear some at a time, the last ones at the end of the block, because each
        time is a commit. After an exception those that did not appear yet do not appear at all.

        Raises:
            StoreError: If a file cannot be written.
        """
        if not self._is_hub_repository:
            yield self.upload
            return
        commits = self._retry("", lambda: HubCommits(self.filesystem, self.base))

        def upload(path: Path, name: str, *, on_bytes: OnBytes = ignore_bytes) -> None:
            self._retry(name, lambda: commits.send(path, name))
            on_bytes(path.stat().st_size)
            if commits.is_full:
                self._retry("", commits.commit)

        yield upload
        self._retry("", commits.commit)

    @property
    def _is_hub_repository(self) -> bool:
        return self.filesystem.protocol == "hf" and not self.base.startswith("buckets/")

    def download(self, name: str, path: Path, *, size: int, sha256: str, on_bytes: OnBytes = ignore_bytes) -> None:
        """Copy a file of the store to `path` atomically, and check its digest.

        Raises:
            CorruptShardError: If the content has another digest, over a network also on the second attempt.
            StoreError: If the store cannot be reached, or `path` cannot be written.
        """
        temporary = temp_path(path)
        meter = Meter(on_bytes)

        def attempt() -> None:
            meter.restart()
            self._call("get_file", size, self._at(name), str(temporary), callback=meter)
            if temporary.stat().st_size < size:
                raise _ShortReplyError(f"found {temporary.stat().st_size} bytes, expected {size}")

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(1 if self.is_local else 2):
                self._retry(name, attempt)
                with temporary.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    if digest == sha256:
                        os.fsync(file.fileno())
                        rename_durably(temporary, path)
                        meter.absolute_update(size)
                        return
        except OSError as error:
            raise cannot_write(path, error) from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise CorruptShardError(
            f"{self.root}/{name}: found sha256 {digest[:12]}, the manifest says {sha256[:12]}; the file is damaged "
            "there: publish or dump it again"
        )

    def _info(self, name: str) -> dict[str, Any] | None:
        def attempt() -> dict[str, Any] | None:
            self.filesystem.invalidate_cache()
            try:
                info: dict[str, Any] = self._call("info", 0, self._at(name))
            except FileNotFoundError:
                return None
            return info if info.get("type", "file") == "file" else None

        return self._retry(name, attempt)

    def _at(self, name: str) -> str:
        return f"{self.base.rstrip('/')}/{name}"

    def _call(self, method: str, num_bytes: int, *args: object, **options: object) -> Any:
        """Call a method of the filesystem once, with a time limit if the filesystem is asynchronous."""
        if getattr(self.filesystem, "async_impl", False):
            call = getattr(self.filesystem, f"_{method}")
            limit_s = ATTEMPT_S + num_bytes / SLOWEST_BYTES_PER_S
            return fsspec.asyn.sync(self.filesystem.loop, call, *args, timeout=limit_s, **options)
        return getattr(self.filesystem, method)(*args, **options)

    def _retry(self, name: str, attempt: Callable[[], _Result], *, where: str = "") -> _Result:
        """Call `attempt` until it succeeds, at most `ATTEMPTS` times. Translate exceptions to ShardErrors."""
        pause = FIRST_PAUSE_S
        where = where or f"{self.root}/{name}"
        for number in range(1, ATTEMPTS + 1):
            try:
                return attempt()
            except ShardError:
                raise
            except _ShortReplyError as error:
                if number == ATTEMPTS or self.is_local:
                    raise CorruptShardError(
                        f"{where}: {error}; the file is cut short, fetch or dump that shard again"
                    ) from None
            except Exception as error:
                if isinstance(error, OSError) and error.errno in _NO_ROOM:
                    raise
                if (final := final_error(self.root, name, where, error)) is not None:
                    raise final from None
                if number == ATTEMPTS:
                    raise StoreError(
                        f"{where}: {type(error).__name__}: {error}; gave up after {ATTEMPTS} attempts, "
                        "check the address and the network, then run again"
                    ) from error
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, LONGEST_PAUSE_S)
        raise AssertionError("unreachable")


def _size_of(info: dict[str, Any]) -> int:
    return -1 if info.get("size") is None else int(info["size"])


def open_store(root: str | os.PathLike[str]) -> Store:
    """Return the store at a path or URL. Nothing is read.

    Raises:
        StoreError: If no installed fsspec filesystem supports the URL.
    """
    url = os.fspath(root)
    try:
        filesystem, base = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        extra = _EXTRA_OF_PROTOCOL.get(url.partition("://")[0])
        remedy = f"; run pip install 'teacherless[{extra}]'" if extra and isinstance(error, ImportError) else ""
        raise StoreError(
            f"{url}: {error}; expected a folder, or a URL whose fsspec package is installed{remedy}"
        ) from None
    return Store(root=url.rstrip("/"), filesystem=filesystem, base=base)
