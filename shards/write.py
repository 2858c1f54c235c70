"""Write rows to shards.

A shard is written under a temporary name in its directory, synced, and then named: it is complete or absent. Its
entry (`<name>.json`: size, digests, chunks) is written after it by `shards.commit`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from shards.commit import commit_shard
from shards.errors import ShardError
from shards.format.batch import Row, build_batch, num_tokens
from shards.format.manifest import ChunkEntry, ShardEntry
from shards.format.schema import Layout, file_schema
from shards.storage.atomic import cannot_write, file_sha256
from shards.storage.temp_files import temp_path

ZSTD_LEVEL = 9
"""Level 3 costs 2 % more bytes. Level 19 saves 1 % at a tenth of the speed (docs/benchmarks)."""

_MAGIC_BYTES = 8
"""Bytes of an Arrow file before its schema."""


class BatchWriter:
    """Write record batches to an unfinished shard, and describe each as a chunk.

    A context manager: at its end the file is closed, and deleted unless it was renamed. OSErrors pass through.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Create the file.

        Args:
            path: Temporary name of the shard.
            schema: Schema with the metadata of the shard.
        """
        self.path = path
        self.chunks: list[ChunkEntry] = []
        self._row_digests = hashlib.sha256()
        self._schema = schema
        self._file = path.open("w+b")
        options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=ZSTD_LEVEL))
        self._writer = pa.ipc.new_file(self._file, schema, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # buffered bytes may not fit on a full disk
            self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a chunk."""
        self._file.flush()
        # Arrow writes magic bytes and schema only with the first batch.
        offset = self._file.seek(0, os.SEEK_END) or _MAGIC_BYTES + len(self._schema.serialize())
        self._writer.write_batch(batch)
        self._file.flush()
        length = self._file.seek(0, os.SEEK_END) - offset
        self._file.seek(offset)
        sha256 = hashlib.sha256(self._file.read(length)).hexdigest()
        for digest in batch.column("row_sha256").to_pylist():
            self._row_digests.update(digest)
        self.chunks.append(
            ChunkEntry(offset=offset, length=length, rows=batch.num_rows, tokens=num_tokens(batch), sha256=sha256)
        )

    def finish(self, name: str = "") -> ShardEntry:
        """Complete and sync the file.

        Args:
            name: Name of the shard, which the caller gives to the file.

        Returns:
            The entry of the shard.
        """
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return ShardEntry(
            name=name,
            bytes=self.path.stat().st_size,
            sha256=file_sha256(self.path),
            rows=sum(c.rows for c in self.chunks),
            tokens=sum(c.tokens for c in self.chunks),
            rows_sha256=self._row_digests.hexdigest(),
            chunks=tuple(self.chunks),
        )


class ShardWriter:
    """Write rows to one shard. A context manager: without a successful `close`, no file remains."""

    def __init__(
        self, folder: Path, name: str, *, layout: Layout, task: str, fingerprint: str, chunk_tokens: int
    ) -> None:
        """Create the unfinished file.

        Args:
            folder: Directory of the cache, created if needed.
            name: File name of the shard.
            layout: Parameters of the codes.
            task: Name of the task, for the metadata of the file.
            fingerprint: Digest of the inputs of the dump, for the metadata of the file.
            chunk_tokens: A chunk ends with the row that reaches this number of tokens.

        Raises:
            StoreError: If the file cannot be created.
        """
        self.path = folder / name
        self._layout = layout
        self._chunk_tokens = chunk_tokens
        self._schema = file_schema(layout, task=task, fingerprint=fingerprint)
        self._pending: list[Row] = []
        self._pending_tokens = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._batches = BatchWriter(temp_path(self.path), self._schema)
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batches.__exit__(kind, error, trace)

    def write(self, row: Row) -> None:
        """Add a row, and write a chunk when enough tokens are pending.

        Raises:
            StoreError: If the disk is full.
            ShardError: If no distribution has such records.
        """
        self._pending.append(row)
        self._pending_tokens += len(row.tokens)
        if self._pending_tokens >= self._chunk_tokens:
            self._write_chunk()

    def close(self) -> ShardEntry:
        """Complete the file, give it its name and its entry.

        Returns:
            The entry of the shard. If another worker finished the same task first, it is the entry of its shard.

        Raises:
            ShardError: If there are no rows.
            StoreError: If the disk is full.
        """
        if self._pending:
            self._write_chunk()
        if not self._batches.chunks:
            raise ShardError(f"{self.path.name}: found no rows, expected at least one")
        try:
            entry = self._batches.finish(self.path.name)
            return commit_shard(self._batches.path, self.path, entry, self._schema)
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def _write_chunk(self) -> None:
        batch, _ = build_batch(self._layout, self._pending, self._schema)
        try:
            self._batches.write(batch)
        except OSError as error:
            raise cannot_write(self.path, error) from None
        self._pending, self._pending_tokens = [], 0
