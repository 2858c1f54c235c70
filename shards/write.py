"""How does a shard come to exist? Rows become chunks of one immutable file, which then gets its name.

A shard is written under a temporary name in its folder, synced and then named: it is there complete or not at all.
Its entry (`<name>.json`: size, digests, chunks) is written the same way after it (`shards.commit`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from shards.commit import settle
from shards.errors import ShardError
from shards.format.batch import Row, build_batch
from shards.format.manifest import ChunkEntry, ShardEntry
from shards.format.schema import Layout, file_schema
from shards.storage.atomic import cannot_write, file_sha256
from shards.storage.temp_files import temp_path

ZSTD_LEVEL = 9
"""Level 3 costs 2 % more bytes, level 19 saves 1 % at a tenth of the speed (docs/benchmarks)."""


class ShardWriter:
    """Write rows to one shard. A context manager: without a clean `close` nothing remains."""

    def __init__(
        self, folder: Path, name: str, *, layout: Layout, task: str, fingerprint: str, chunk_tokens: int
    ) -> None:
        self.path = folder / name
        self._layout = layout
        self._chunk_tokens = chunk_tokens
        self._schema = file_schema(layout, task=task, fingerprint=fingerprint)
        self._pending: list[Row] = []
        self._pending_tokens = 0
        self._chunks: list[ChunkEntry] = []
        self._row_digests = hashlib.sha256()
        self._temporary = temp_path(self.path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb")
        except OSError as error:
            raise cannot_write(self.path, error) from None
        options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=ZSTD_LEVEL))
        self._writer = pa.ipc.new_file(self._file, self._schema, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # what is still buffered may not fit on a full disk either
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def write(self, row: Row) -> None:
        """Add a row; a chunk is written when its tokens suffice. Raises StoreError where the disk is full."""
        self._pending.append(row)
        self._pending_tokens += len(row.tokens)
        if self._pending_tokens >= self._chunk_tokens:
            self._write_chunk()

    def close(self) -> ShardEntry:
        """Complete the file, give it its name and its entry, and return that: another's where one was faster."""
        if self._pending:
            self._write_chunk()
        if not self._chunks:
            raise ShardError(f"{self.path.name}: found no rows, expected at least one")
        try:
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            entry = ShardEntry(
                name=self.path.name,
                bytes=self._temporary.stat().st_size,
                sha256=file_sha256(self._temporary),
                rows=sum(c.rows for c in self._chunks),
                tokens=sum(c.tokens for c in self._chunks),
                rows_sha256=self._row_digests.hexdigest(),
                chunks=tuple(self._chunks),
            )
            return settle(self._temporary, self.path, entry, self._schema)
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def _write_chunk(self) -> None:
        batch, digests = build_batch(self._layout, self._pending, self._schema)
        try:
            self._file.flush()
            # Arrow writes magic and schema only with the first batch.
            offset = self._file.tell() or 8 + len(self._schema.serialize())
            self._writer.write_batch(batch)
            self._file.flush()
            length = self._file.tell() - offset
            with self._temporary.open("rb") as written:
                written.seek(offset)
                sha256 = hashlib.sha256(written.read(length)).hexdigest()
        except OSError as error:
            raise cannot_write(self.path, error) from None
        for digest in digests:
            self._row_digests.update(digest)
        self._chunks.append(
            ChunkEntry(
                offset=offset,
                length=length,
                rows=len(self._pending),
                tokens=self._pending_tokens,
                sha256=sha256,
            )
        )
        self._pending, self._pending_tokens = [], 0
