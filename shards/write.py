"""How does a shard come to exist? Rows become chunks of one immutable file, which then gets its name.

A shard is written under a temporary name in its folder, synced and then named: it is there complete or not at all.
Its entry (`<name>.json`: size, digests, chunks) is written the same way after it (`shards.commit`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.commit import settle
from shards.errors import ShardError
from shards.format.chunk import Float32, Int32, Int64, RowInfo
from shards.format.codec import Streams, encode
from shards.format.manifest import ChunkEntry, ShardEntry
from shards.format.schema import Layout, file_schema
from shards.storage.store import cannot_write
from shards.storage.temp_files import temporary_beside

ZSTD_LEVEL = 9
"""Level 3 costs 2 % more bytes, level 19 saves 1 % at a tenth of the speed (docs/benchmarks)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One window with the teacher's records, not yet encoded. Shapes as in `shards.format.chunk.Chunk`, for one row."""

    info: RowInfo
    tokens: Int32
    head_count: Int64
    head_ids: Int32
    head_probs: Float32
    draw_count: Int64
    draw_ids: Int32
    realised_logp: Float32
    whitespace_logp: Float32
    entropy: Float32
    log_z: Float32


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
        self._temporary = temporary_beside(self.path)
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


def build_batch(layout: Layout, rows: Iterable[Row], schema: pa.Schema) -> tuple[pa.RecordBatch, list[bytes]]:
    """Return the Arrow record batch of some rows, and the digest of each."""
    rows = list(rows)
    lengths = _Lengths(rows)
    streams = encode(
        layout,
        tokens=np.concatenate([r.tokens for r in rows]),
        next_ids=np.concatenate([r.tokens[1:] for r in rows]),
        head_count=np.concatenate([r.head_count for r in rows]),
        head_ids=np.concatenate([r.head_ids for r in rows]),
        head_probs=np.concatenate([r.head_probs for r in rows]),
        draw_count=np.concatenate([r.draw_count for r in rows]),
        draw_ids=np.concatenate([r.draw_ids for r in rows]),
        realised_logp=np.concatenate([r.realised_logp for r in rows]),
        whitespace_logp=np.concatenate([r.whitespace_logp for r in rows]),
        entropy=np.concatenate([r.entropy for r in rows]),
        log_z=np.concatenate([r.log_z for r in rows]),
    )
    starts = {name: lengths.starts(name, rows) for name in streams}
    columns: dict[str, pa.Array] = {
        "document": pa.array([bytes.fromhex(r.info.document) for r in rows], pa.binary()),
        "source": pa.array([r.info.source for r in rows], pa.string()),
        "path": pa.array([r.info.path for r in rows], pa.string()),
        "licence": pa.array([r.info.licence for r in rows], pa.string()),
        "window": pa.array([r.info.window for r in rows], pa.uint32()),
        "byte_start": pa.array([r.info.byte_start for r in rows], pa.uint64()),
        "byte_end": pa.array([r.info.byte_end for r in rows], pa.uint64()),
    }
    for name, values in streams.items():
        kind = schema.field(name).type
        columns[name] = pa.ListArray.from_arrays(
            pa.array(starts[name], pa.int32()), pa.array(values, kind.value_type), type=kind
        )
    digests = [row_digest(r.info, {n: v[starts[n][i] : starts[n][i + 1]] for n, v in streams.items()}, schema)
               for i, r in enumerate(rows)]  # fmt: skip
    columns["row_sha256"] = pa.array(digests, pa.binary())
    return pa.RecordBatch.from_arrays([columns[f.name] for f in schema], schema=schema), digests


def row_digest(info: RowInfo, streams: dict[str, npt.NDArray[np.generic]], schema: pa.Schema) -> bytes:
    """Return the sha256 of a row's content: each column in the schema's order, its length in bytes, its bytes.

    Integers are 8 bytes, list values as their type, all little-endian; strings are UTF-8.
    """
    digest = hashlib.sha256()
    for field in schema:
        if field.name == "row_sha256":
            continue
        if field.name in streams:
            raw = np.ascontiguousarray(streams[field.name]).astype(f"<{streams[field.name].dtype.str[1:]}").tobytes()
        else:
            value: Any = getattr(info, field.name)
            if field.name == "document":
                raw = bytes.fromhex(value)
            else:
                raw = value.to_bytes(8, "little") if isinstance(value, int) else value.encode()
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.digest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's content, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Lengths:
    """Offsets of the rows in each stream. Only the realised codes' lengths depend on the content."""

    def __init__(self, rows: list[Row]) -> None:
        self._tokens = np.array([len(r.tokens) for r in rows])
        self._heads = np.array([len(r.head_ids) for r in rows])
        self._coded = np.array([len(r.head_ids) - np.count_nonzero(r.head_count) for r in rows])
        self._draws = np.array([len(r.draw_ids) for r in rows])

    def starts(self, name: str, rows: list[Row]) -> Int64:
        if name == "tokens":
            lengths = self._tokens
        elif name == "head_ids":
            lengths = self._heads
        elif name == "head_codes":
            lengths = self._coded
        elif name.startswith("draw_gaps"):
            lengths = self._draws
        elif name == "realised_codes":
            lengths = np.array([_outside(r) for r in rows])
        else:
            lengths = self._tokens - 1
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=starts[1:])
        return starts


def _outside(row: Row) -> int:
    """Return at how many positions the realised token is not in the head."""
    owner = np.repeat(np.arange(len(row.head_count)), row.head_count)
    hits = owner[row.head_ids == row.tokens[1:][owner]]
    return len(row.tokens) - 1 - len(np.unique(hits))


def streams_of(batch: pa.RecordBatch, names: Iterable[str]) -> Streams:
    """Return the flat values of a batch's list columns as numpy views."""
    return {name: batch.column(name).flatten().to_numpy(zero_copy_only=True) for name in names}
