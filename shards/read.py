"""How do I get chunk i? One ranged read, a digest check, numpy arrays.

`open` reads the manifest and nothing else. Every chunk's bytes are hashed before a value of them is used: Arrow
with zstd does not notice most flipped bits itself.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from shards.errors import CorruptShardError, IncompleteCacheError, ShardError
from shards.format.batch import decode_chunk
from shards.format.chunk import Chunk
from shards.format.manifest import MANIFEST_NAME, ChunkEntry, Manifest
from shards.storage import cache_dirs
from shards.storage.atomic import write_atomic
from shards.storage.chunk_cache import ChunkCache
from shards.storage.store import Store, open_store

TOKENIZER_FOLDER = "tokenizer"


@dataclass(frozen=True, slots=True)
class Cache:
    """A complete cache, read lazily. `len(cache)` chunks; `cache[i]` reads, checks and decodes chunk i."""

    store: Store
    manifest: Manifest
    _first: tuple[int, ...]
    """Number of the first chunk of each shard, and at the end the number of chunks."""
    _kept: ChunkCache | None = None
    """Chunks that were read before and are kept on this machine."""

    @classmethod
    def of(cls, path: str | os.PathLike[str], manifest: Manifest) -> Cache:
        """Return the cache at a path or URL that a manifest in hand describes."""
        counts = (len(s.chunks) for s in manifest.shards)
        return cls(open_store(path), manifest, tuple(itertools.accumulate(counts, initial=0)))

    def __len__(self) -> int:
        return self._first[-1]

    def __getitem__(self, i: int) -> Chunk:
        """Return chunk i. Raises CorruptShardError, naming shard and chunk, unless its bytes are the promised ones."""
        where, entry, raw = self.chunk_bytes(i)
        return decode_chunk(self.manifest.layout, raw, where=where, entry=entry)

    def __iter__(self) -> Iterator[Chunk]:
        return (self[i] for i in range(len(self)))

    def chunk_bytes(self, i: int) -> tuple[str, ChunkEntry, bytes]:
        """Return a chunk's name for messages, its entry, and its Arrow message, digest checked."""
        shard, number = self.locate(i)
        entry = self.manifest.shards[shard]
        chunk = entry.chunks[number]
        where = f"{self.store.root}/{entry.name} chunk {number}"
        if self._kept is not None and (kept := self._kept.get(chunk.sha256)) is not None:
            return where, chunk, kept
        for _ in range(1 if self.store.is_local else 2):
            raw = self.store.read_range(entry.name, chunk.offset, chunk.length, where=where)
            found = hashlib.sha256(raw).hexdigest()
            if found == chunk.sha256:
                break
        else:
            raise CorruptShardError(
                f"{where}: found sha256 {found[:12]}, the manifest says {chunk.sha256[:12]}; the bytes are damaged, "
                "fetch or dump that shard again"
            )
        if self._kept is not None:
            self._kept.put(chunk.sha256, raw)
        return where, chunk, raw

    def locate(self, i: int) -> tuple[int, int]:
        """Return (number of the shard, number of the chunk in it) of chunk i. Raises IndexError."""
        if not 0 <= i < len(self):
            raise IndexError(f"chunk {i}: the cache has {len(self)}")
        shard = bisect.bisect_right(self._first, i) - 1
        return shard, i - self._first[shard]

    def chunk_rows(self, i: int) -> int:
        """Return the number of rows of chunk i, without reading it."""
        return self._entry(i).rows

    def chunk_tokens(self, i: int) -> int:
        """Return the number of tokens of chunk i, without reading it."""
        return self._entry(i).tokens

    def _entry(self, i: int) -> ChunkEntry:
        shard, number = self.locate(i)
        return self.manifest.shards[shard].chunks[number]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.manifest.rows

    @property
    def tokens(self) -> int:
        """Number of tokens, prefix tokens included."""
        return self.manifest.tokens

    @property
    def manifest_sha256(self) -> str:
        """Identity of the cache."""
        return self.manifest.sha256

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of the shards and the manifest. The tokenizer's files, the same for any size, are not counted."""
        return sum(s.bytes for s in self.manifest.shards) + len(self.manifest.to_bytes())

    @property
    def bytes_per_token(self) -> float:
        """Bytes on disk over tokens."""
        return self.bytes_on_disk / max(1, self.tokens)

    @property
    def tokenizer_dir(self) -> Path:
        """Local folder with the teacher's tokenizer files; those of a remote cache are copied to the user's cache."""
        names = [f for f in self.manifest.files if f.name.startswith(f"{TOKENIZER_FOLDER}/")]
        here = Path(self.store.base)
        folder = (
            here
            if self.store.is_local
            else cache_dirs.cache_dir() / "tokenizers" / self.manifest.tokenizer.fingerprint[:16]
        )
        for file in names:
            raw = (folder / file.name).read_bytes() if (folder / file.name).exists() else self.store.read(file.name)
            if hashlib.sha256(raw).hexdigest() != file.sha256:
                raise CorruptShardError(
                    f"{self.store.root}/{file.name}: digest differs from the manifest's; fetch it again"
                )
            if not (folder / file.name).exists():
                write_atomic(folder / file.name, raw)
        return folder / TOKENIZER_FOLDER


def open(
    path: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_bytes: int | None = None,
) -> Cache:
    """Open the cache at a path or URL (s3://, hf://, https://, whatever fsspec knows).

    With `cache_bytes`, the chunks used last are kept on this machine, in `cache_dir` or the user's own folder, and
    never take more than that many bytes.

    Raises IncompleteCacheError where there is no manifest, CorruptShardError where it was damaged,
    FormatVersionError where it is of another version, StoreError where the place cannot be reached, ShardError
    where `cache_bytes` is missing or below the largest chunk.
    """
    if cache_dir is not None and cache_bytes is None:
        raise ShardError(f"cache_bytes: found none, expected the most bytes that {os.fspath(cache_dir)} may take")
    store = open_store(path)
    if store.is_local and (local := Path(store.base)).exists() and not local.is_dir():
        raise IncompleteCacheError(f"{store.root}: found a file, expected the folder of a cache")
    cache = Cache.of(path, _read_manifest(store))
    if cache_bytes is None:
        return cache
    kept = ChunkCache.at(
        Path(cache_dir) if cache_dir is not None else cache_dirs.cache_dir() / "chunks",
        limit_bytes=cache_bytes,
        chunks=(c for s in cache.manifest.shards for c in s.chunks),
    )
    return replace(cache, _kept=kept)


def _read_manifest(store: Store) -> Manifest:
    for last in (store.is_local, True):
        try:
            raw = store.read(MANIFEST_NAME)
        except IncompleteCacheError:
            raise IncompleteCacheError(
                f"{store.root}: found no {MANIFEST_NAME}, expected a complete cache; "
                "run teacher-dump with the same settings until it says that the cache is complete"
            ) from None
        try:
            return Manifest.from_bytes(raw, where=f"{store.root}/{MANIFEST_NAME}")
        except CorruptShardError:  # over a network it may be the reply that was damaged
            if last:
                raise
    raise AssertionError("unreachable")
