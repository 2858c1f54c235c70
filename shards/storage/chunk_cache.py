"""A local cache of the chunks used last, limited to a number of bytes.

Each chunk is a file, named by the chunk's digest. So caches may share a directory, and a file can be checked by its
name. The modification time is the time of the last use.

Any number of processes may use a directory. Files appear by rename, and only the holder of the directory's lock adds
files. The kernel releases the lock when its process ends. A process that does not get the lock at once does not cache
its chunk, so no reader waits.

Not guaranteed: that a chunk is cached. Guaranteed: that a returned chunk has the right digest, and that the files of
the directory, including unfinished ones, never exceed the limit.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shards.errors import ShardError
from shards.format.manifest import ChunkEntry
from shards.storage.atomic import cannot_write

_CHUNK_SUFFIX = ".chunk"
_UNFINISHED_SUFFIX = ".part"
_LOCK = "lock"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkCache:
    """Chunks in a local directory."""

    folder: Path
    limit_bytes: int
    """Maximum number of bytes of all files."""

    @classmethod
    def at(cls, folder: Path, *, limit_bytes: int, chunks: Iterable[ChunkEntry]) -> ChunkCache:
        """Return the cache in a directory, which is created if needed.

        Args:
            folder: The directory.
            limit_bytes: Maximum number of bytes of all files.
            chunks: The chunks that will be read.

        Raises:
            ShardError: If one of `chunks` exceeds the limit, or the directory cannot be created.
        """
        largest = max((c.length for c in chunks), default=0)
        if limit_bytes < largest:
            raise ShardError(
                f"cache_bytes: found {limit_bytes:,}, expected at least {largest:,}, the largest chunk of the cache"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from None
        return cls(folder=folder, limit_bytes=limit_bytes)

    def get(self, sha256: str) -> bytes | None:
        """Return the chunk with this digest, None if it is not cached. A damaged file is deleted."""
        path = self.folder / f"{sha256}{_CHUNK_SUFFIX}"
        try:
            raw = path.read_bytes()
        except OSError:
            return None
        is_sound = hashlib.sha256(raw).hexdigest() == sha256
        try:
            if is_sound:
                os.utime(path)
            else:
                path.unlink()
        except OSError:  # another process deleted it first
            pass
        return raw if is_sound else None

    def put(self, sha256: str, raw: bytes) -> None:
        """Cache a chunk, and delete the chunks used longest ago to make room.

        Args:
            sha256: Digest of the chunk, which the caller has checked.
            raw: The chunk.

        Raises:
            StoreError: If the directory cannot be written.
        """
        path = self.folder / f"{sha256}{_CHUNK_SUFFIX}"
        try:
            lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
                if path.exists():
                    return
                self._make_room(len(raw))
                unfinished = path.with_suffix(_UNFINISHED_SUFFIX)
                unfinished.write_bytes(raw)
                os.replace(unfinished, path)
            finally:
                os.close(lock)
        except OSError as error:
            raise cannot_write(path, error) from None

    def _make_room(self, num_bytes: int) -> None:
        """Delete files until `num_bytes` fit. The caller holds the lock, so unfinished files have no owner."""
        by_age: list[tuple[int, int, str]] = []
        with os.scandir(self.folder) as files:
            for file in files:
                if file.name.endswith(_UNFINISHED_SUFFIX):
                    os.unlink(file.path)
                elif file.name.endswith(_CHUNK_SUFFIX):
                    try:
                        stat = file.stat()
                    except FileNotFoundError:  # a reader deleted it as damaged
                        continue
                    by_age.append((stat.st_mtime_ns, stat.st_size, file.path))
        total = sum(size for _, size, _ in by_age)
        for _, size, path in sorted(by_age):
            if total + num_bytes <= self.limit_bytes:
                return
            Path(path).unlink(missing_ok=True)
            total -= size
