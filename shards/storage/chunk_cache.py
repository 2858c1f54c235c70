"""Which chunks are kept on this machine? The last used ones, up to a hard limit of bytes.

One file per chunk, named by the chunk's digest, so caches may share a folder and a file can be checked without
asking anyone. The file's time of change is the time of its last use. Any number of processes may use a folder:
files appear by rename; only the holder of the folder's lock adds files, and the kernel takes the lock back from a
process that dies. Who does not get the lock at once does not keep its chunk: no reader ever waits.

Not promised: that a chunk is kept. Promised: what comes back has the right digest, and the files of the folder,
unfinished ones included, never hold more bytes than the limit.
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
from shards.storage.store import cannot_write

_KEPT = ".chunk"
_UNFINISHED = ".part"
_LOCK = "lock"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkCache:
    """Chunks in a local folder."""

    folder: Path
    limit_bytes: int
    """Most bytes of all chunks together."""

    @classmethod
    def at(cls, folder: Path, *, limit_bytes: int, chunks: Iterable[ChunkEntry]) -> ChunkCache:
        """Return the cache in a folder, made where needed. Raises ShardError where one of `chunks` cannot fit."""
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
        """Return the chunk with this digest, None where it is not kept. A damaged one is removed."""
        path = self.folder / f"{sha256}{_KEPT}"
        try:
            raw = path.read_bytes()
        except OSError:
            return None
        try:
            if hashlib.sha256(raw).hexdigest() == sha256:
                os.utime(path)
                return raw
            path.unlink()
        except OSError:  # another process removed it first
            return raw if hashlib.sha256(raw).hexdigest() == sha256 else None
        return None

    def put(self, sha256: str, raw: bytes) -> None:
        """Keep a chunk whose digest was checked, and let go of those not used for longest to make room."""
        path = self.folder / f"{sha256}{_KEPT}"
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
                unfinished = path.with_suffix(_UNFINISHED)
                unfinished.write_bytes(raw)
                os.replace(unfinished, path)
            finally:
                os.close(lock)
        except OSError as error:
            raise cannot_write(path, error) from None

    def _make_room(self, num_bytes: int) -> None:
        """Remove files until `num_bytes` fit. Called with the lock held, so an unfinished file has no owner left."""
        found: list[tuple[int, int, str]] = []
        with os.scandir(self.folder) as files:
            for file in files:
                if file.name.endswith(_UNFINISHED):
                    os.unlink(file.path)
                elif file.name.endswith(_KEPT):
                    try:
                        facts = file.stat()
                    except FileNotFoundError:  # a reader found it damaged
                        continue
                    found.append((facts.st_mtime_ns, facts.st_size, file.path))
        total = sum(size for _, size, _ in found)
        for _, size, name in sorted(found):
            if total + num_bytes <= self.limit_bytes:
                return
            Path(name).unlink(missing_ok=True)
            total -= size
