"""Read chunks of a cache: one ranged read, a digest check, numpy arrays.

`open` reads only the manifest. The bytes of a chunk are hashed before any of its values is used, because Arrow with
zstd does not detect most flipped bits.
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
    """A complete cache, read lazily: `len(cache)` chunks, and `cache[i]` reads, checks and decodes chunk i."""

    store: Store
    manifest: Manifest
    _first_chunks: tuple[int, ...]
    """Index of the first chunk of each shard, then the number of chunks."""
    _local_chunks: ChunkCache | None = None
    """Chunks that are cached on this machine."""

    @classmethod
    def of(cls, path: str | os.PathLike[str], manifest: Manifest) -> Cache:
        """Return the cache at a path or URL whose manifest is known."""
        counts = (len(s.chunks) for s in manifest.shards)
        return cls(open_store(path), manifest, tuple(itertools.accumulate(counts, initial=0)))

    def __len__(self) -> int:
        return self._first_chunks[-1]

    def __getitem__(self, i: int) -> Chunk:
        """Return chunk i.

        Raises:
            CorruptShardError: If the bytes have another digest than the manifest says. The message names the chunk.
            IndexError: If there is no such chunk.
            StoreError: If the store cannot be reached.
            TokensRemovedError: If the cache was published without its tokens.
        """
        where, entry, raw = self.chunk_bytes(i)
        return decode_chunk(self.manifest.layout, raw, where=where, entry=entry)

    def __iter__(self) -> Iterator[Chunk]:
        return (self[i] for i in range(len(self)))

    def chunk_bytes(self, i: int) -> tuple[str, ChunkEntry, bytes]:
        """Return the name of chunk i for messages, its entry, and its Arrow message with the right digest.

        Over a network, a chunk with another digest is read twice: the reply may be damaged.
        """
        shard_number, number = self.locate(i)
        shard = self.manifest.shards[shard_number]
        entry = shard.chunks[number]
        where = f"{self.store.root}/{shard.name} chunk {number}"
        if self._local_chunks is not None and (cached := self._local_chunks.get(entry.sha256)) is not None:
            return where, entry, cached
        raw = self.store.read_range(shard.name, entry.offset, entry.length, where=where)
        if not self.store.is_local and hashlib.sha256(raw).hexdigest() != entry.sha256:
            raw = self.store.read_range(shard.name, entry.offset, entry.length, where=where)
        check_chunk(raw, entry, where=where)
        if self._local_chunks is not None:
            self._local_chunks.put(entry.sha256, raw)
        return where, entry, raw

    def locate(self, i: int) -> tuple[int, int]:
        """Return the index of the shard of chunk i, and the index of the chunk in it.

        Raises:
            IndexError: If there is no such chunk.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"chunk {i}: the cache has {len(self)}")
        shard = bisect.bisect_right(self._first_chunks, i) - 1
        return shard, i - self._first_chunks[shard]

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
        """Number of tokens, including prefix tokens."""
        return self.manifest.tokens

    @property
    def manifest_sha256(self) -> str:
        """Identity of the cache."""
        return self.manifest.sha256

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of the shards and the manifest, without the tokenizer's files."""
        return sum(s.bytes for s in self.manifest.shards) + len(self.manifest.to_bytes())

    @property
    def bytes_per_token(self) -> float:
        """Bytes on disk per token."""
        return self.bytes_on_disk / max(1, self.tokens)

    @property
    def tokenizer_dir(self) -> Path:
        """Local directory of the teacher's tokenizer files. Those of a remote cache are copied to the user's cache."""
        folder = (
            Path(self.store.base)
            if self.store.is_local
            else cache_dirs.cache_dir() / "tokenizers" / self.manifest.tokenizer.fingerprint[:16]
        )
        for file in self.manifest.files:
            if not file.name.startswith(f"{TOKENIZER_FOLDER}/"):
                continue
            path = folder / file.name
            exists = path.exists()
            raw = path.read_bytes() if exists else self.store.read(file.name)
            if hashlib.sha256(raw).hexdigest() != file.sha256:
                raise CorruptShardError(
                    f"{self.store.root}/{file.name}: digest differs from the manifest's; fetch it again"
                )
            if not exists:
                write_atomic(path, raw)
        return folder / TOKENIZER_FOLDER


def check_chunk(raw: bytes, entry: ChunkEntry, *, where: str) -> None:
    """Raise CorruptShardError if the bytes of a chunk are too few or have another digest.

    Args:
        raw: Bytes of the chunk.
        entry: What the manifest says of it.
        where: Name of the chunk in error messages.
    """
    if len(raw) != entry.length:
        raise CorruptShardError(
            f"{where}: found {len(raw)} bytes, expected {entry.length}; the file is cut short, fetch or dump that "
            "shard again"
        )
    digest = hashlib.sha256(raw).hexdigest()
    if digest != entry.sha256:
        raise CorruptShardError(
            f"{where}: found sha256 {digest[:12]}, the manifest says {entry.sha256[:12]}; the bytes are damaged, "
            "fetch or dump that shard again"
        )


def open(
    path: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_bytes: int | None = None,
) -> Cache:
    """Open a complete cache. Only its manifest is read.

    Args:
        path: Directory or URL (s3://, hf://, https://, ... as fsspec supports).
        cache_dir: Directory in which the chunks used last are kept; by default one in the user's cache.
        cache_bytes: Maximum number of bytes of kept chunks; None keeps none.

    Raises:
        IncompleteCacheError: If there is no manifest.
        CorruptShardError: If the manifest is damaged.
        FormatVersionError: If the format version is not supported.
        StoreError: If the path cannot be reached.
        ShardError: If `cache_bytes` is missing or below the largest chunk.
    """
    if cache_dir is not None and cache_bytes is None:
        raise ShardError(f"cache_bytes: found none, expected the most bytes that {os.fspath(cache_dir)} may take")
    store = open_store(path)
    if store.is_local and (local := Path(store.base)).exists() and not local.is_dir():
        raise IncompleteCacheError(f"{store.root}: found a file, expected the folder of a cache")
    cache = Cache.of(path, _read_manifest(store))
    if cache_bytes is None:
        return cache
    local_chunks = ChunkCache.at(
        Path(cache_dir) if cache_dir is not None else cache_dirs.cache_dir() / "chunks",
        limit_bytes=cache_bytes,
        chunks=(c for s in cache.manifest.shards for c in s.chunks),
    )
    return replace(cache, _local_chunks=local_chunks)


def _read_manifest(store: Store) -> Manifest:
    """Read the manifest. Over a network, a damaged one is read twice: the reply may be damaged."""
    where = f"{store.root}/{MANIFEST_NAME}"
    try:
        raw = store.read(MANIFEST_NAME)
        try:
            return Manifest.from_bytes(raw, where=where)
        except CorruptShardError:
            if store.is_local:
                raise
        return Manifest.from_bytes(store.read(MANIFEST_NAME), where=where)
    except IncompleteCacheError:
        raise IncompleteCacheError(
            f"{store.root}: found no {MANIFEST_NAME}, expected a complete cache; "
            "run teacher-dump with the same settings until it reports that the cache is complete"
        ) from None
