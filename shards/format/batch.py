"""Rows to Arrow record batches, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.errors import CorruptShardError, ShardError, TokensRemovedError
from shards.format.chunk import Chunk, Float32, Int32, Int64, RowInfo, label_mask
from shards.format.codec import FlatRecords, Streams, decode, encode
from shards.format.manifest import ChunkEntry
from shards.format.messages import conversation_problem
from shards.format.relations import decode_relations
from shards.format.schema import RESPONSES_VERSION, Layout, list_names, schema

_DECODE_ERRORS = (pa.ArrowInvalid, pa.ArrowException, OSError, IndexError, KeyError, ValueError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """The teacher's records of one window, not yet encoded.

    Shapes are those of `shards.format.codec.FlatRecords`, for one row.
    """

    info: RowInfo
    tokens: Int32
    head_count: Int64
    head_ids: Int32
    head_probs: Float32
    draw_count: Int64
    draw_ids: Int32
    label_logp: Float32
    whitespace_logp: Float32
    entropy: Float32
    log_z: Float32
    relations: Float32 | None = None
    """[positions, C] vectors, see `shards.format.relations`; None for a row without relations."""

    @property
    def labels(self) -> Int32:
        """The tokens that have a position."""
        return self.tokens[self.info.context :]


# ---------------------------------------------------------------------------------------------------------------
# Rows to batches


def build_batch(layout: Layout, rows: Iterable[Row], schema: pa.Schema) -> tuple[pa.RecordBatch, list[bytes]]:
    """Encode rows as a record batch.

    Args:
        layout: Parameters of the codes.
        rows: At least one row.
        schema: Schema of the shard, with its metadata.

    Returns:
        The batch, and the digest of each row.

    Raises:
        ShardError: If no distribution has such records.
    """
    rows = list(rows)
    _check_contexts(layout, rows)
    streams = encode(layout, _concatenate(rows))
    starts = {name: _starts(_stream_lengths(layout, name, rows)) for name in streams}
    infos = [row.info for row in rows]
    columns: dict[str, pa.Array] = {
        "document": pa.array([bytes.fromhex(i.document) for i in infos], pa.binary()),
        "source": pa.array([i.source for i in infos], pa.string()),
        "path": pa.array([i.path for i in infos], pa.string()),
        "licence": pa.array([i.licence for i in infos], pa.string()),
        "window": pa.array([i.window for i in infos], pa.uint32()),
        "byte_start": pa.array([i.byte_start for i in infos], pa.uint64()),
        "byte_end": pa.array([i.byte_end for i in infos], pa.uint64()),
        "context": pa.array([i.context for i in infos], pa.uint32()),
        "messages": pa.array([i.messages for i in infos], pa.string()),
    }
    for name, values in streams.items():
        columns[name] = list_array(schema.field(name), values, starts[name])
    digests = [
        row_digest(info, {name: v[starts[name][r] : starts[name][r + 1]] for name, v in streams.items()}, schema)
        for r, info in enumerate(infos)
    ]
    columns["row_sha256"] = pa.array(digests, pa.binary())
    return pa.RecordBatch.from_arrays([columns[f.name] for f in schema], schema=schema), digests


def list_array(field: pa.Field, values: npt.NDArray[np.generic], starts: Int64) -> pa.ListArray:
    """Return a list column.

    Args:
        field: Name and type of the column.
        values: Flat values of all rows.
        starts: [R + 1] offsets of the rows in `values`.
    """
    flat = pa.array(values, field.type.value_type)
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), flat, type=field.type)


def row_digest(info: RowInfo, streams: Streams, schema: pa.Schema) -> bytes:
    """Return the sha256 of the content of a row.

    Each column in the order of the schema contributes its length in bytes, then its bytes. Integers are 8 bytes, list
    values have the width of their type, all little-endian. Strings are UTF-8.
    """
    digest = hashlib.sha256()
    for field in schema:
        if field.name == "row_sha256":
            continue
        if field.name in streams:
            values = streams[field.name]
            raw = np.ascontiguousarray(values).astype(f"<{values.dtype.str[1:]}").tobytes()
        else:
            value: Any = getattr(info, field.name)
            if field.name == "document":
                raw = bytes.fromhex(value)
            else:
                raw = value.to_bytes(8, "little") if isinstance(value, int) else value.encode()
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.digest()


def _check_contexts(layout: Layout, rows: list[Row]) -> None:
    """Raise ShardError if a row has no such context, or a conversation that the layout or its digest does not fit."""
    for row in rows:
        info, num_tokens = row.info, len(row.tokens)
        if not 1 <= info.context <= num_tokens:
            raise ShardError(
                f"context: found {info.context} in a row of {num_tokens} tokens, expected 1 to {num_tokens}"
            )
        if not layout.has_responses and (info.context, info.messages) != (1, ""):
            raise ShardError(
                f"context: found {info.context}, and {len(info.messages)} characters of messages, in a row of format "
                f"version {layout.version}; rows with a context need version {RESPONSES_VERSION}"
            )
        if len(row.head_count) != num_tokens - info.context:
            raise ShardError(
                f"head_count: found {len(row.head_count)} positions, expected {num_tokens - info.context}: "
                f"{num_tokens} tokens without a context of {info.context}"
            )
        if row.relations is not None and len(row.relations) != len(row.head_count):
            raise ShardError(f"relations: found {len(row.relations)} positions, expected {len(row.head_count)} or none")
        if (problem := conversation_problem(info)) is not None:
            raise ShardError(problem)


def _concatenate(rows: list[Row]) -> FlatRecords:
    vectors = [r.relations for r in rows if r.relations is not None]
    return FlatRecords(
        tokens=np.concatenate([r.tokens for r in rows]),
        next_ids=np.concatenate([r.labels for r in rows]),
        head_count=np.concatenate([r.head_count for r in rows]),
        head_ids=np.concatenate([r.head_ids for r in rows]),
        head_probs=np.concatenate([r.head_probs for r in rows]),
        draw_count=np.concatenate([r.draw_count for r in rows]),
        draw_ids=np.concatenate([r.draw_ids for r in rows]),
        label_logp=np.concatenate([r.label_logp for r in rows]),
        whitespace_logp=np.concatenate([r.whitespace_logp for r in rows]),
        entropy=np.concatenate([r.entropy for r in rows]),
        log_z=np.concatenate([r.log_z for r in rows]),
        relations=np.concatenate(vectors) if vectors else None,
    )


def _stream_lengths(layout: Layout, name: str, rows: list[Row]) -> list[int]:
    """Return the number of values of each row in a stream."""
    if name in layout.absent_columns:
        return [0] * len(rows)
    if layout.relations is not None and name in layout.relations.column_widths:
        width = layout.relations.column_widths[name]
        return [0 if r.relations is None else width * len(r.relations) for r in rows]
    if name == "tokens":
        return [len(r.tokens) for r in rows]
    if name == "head_ids":
        return [len(r.head_ids) for r in rows]
    if name == "head_codes":
        return [len(r.head_ids) - int(np.count_nonzero(r.head_count)) for r in rows]
    if name.startswith("draw_gaps"):
        return [len(r.draw_ids) for r in rows]
    if name == "realised_codes":
        return [_num_labels_outside(r) for r in rows]
    return [len(r.labels) for r in rows]


def _num_labels_outside(row: Row) -> int:
    """Return the number of positions whose label is not in the head."""
    owner = np.repeat(np.arange(len(row.head_count)), row.head_count)
    hits = owner[row.head_ids == row.labels[owner]]
    return len(row.labels) - len(np.unique(hits))


def _starts(lengths: list[int]) -> Int64:
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


# ---------------------------------------------------------------------------------------------------------------
# Batches to rows


def read_batch(layout: Layout, raw: bytes) -> pa.RecordBatch:
    """Return the record batch of an Arrow message. The caller has checked its digest.

    Arrow takes the schema on trust: bytes with other columns, as those of another format version, would be read outside
    their buffers. So buffers, offsets and UTF-8 are validated, which costs little: it is linear in rows, not in tokens.

    Raises:
        CorruptShardError: If the bytes are no batch with these columns.
    """
    try:
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(pa.py_buffer(raw)), schema(layout))
        batch.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise CorruptShardError(f"does not decode ({error}); fetch or dump that shard again") from None
    return batch


def streams_of(batch: pa.RecordBatch) -> dict[str, npt.NDArray[np.generic]]:
    """Return the flat values of the list columns of a batch."""
    return {name: batch.column(name).flatten().to_numpy() for name in list_names(batch.schema)}


def row_infos(batch: pa.RecordBatch) -> tuple[RowInfo, ...]:
    """Return the origin of each row of a batch."""
    names = [field.name for field in fields(RowInfo) if field.name in batch.schema.names]
    columns = [batch.column(name).to_pylist() for name in names]
    columns[0] = [document.hex() for document in columns[0]]
    return tuple(RowInfo(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True))


def row_digests(batch: pa.RecordBatch) -> Iterator[bytes]:
    """Yield the digest of the content of each row, whatever the batch says that it is."""
    values = streams_of(batch)
    starts = {name: batch.column(name).offsets.to_numpy() for name in values}
    for r, info in enumerate(row_infos(batch)):
        yield row_digest(
            info, {name: v[starts[name][r] : starts[name][r + 1]] for name, v in values.items()}, batch.schema
        )


def row_lengths(batch: pa.RecordBatch) -> list[int]:
    """Return the number of tokens of each row, its context and its positions, even if the tokens were removed."""
    lengths: list[int] = (np.diff(batch.column("tail_codes").offsets.to_numpy()) + _contexts(batch)).tolist()
    return lengths


def _contexts(batch: pa.RecordBatch) -> Int64:
    if "context" not in batch.schema.names:
        return np.ones(batch.num_rows, np.int64)
    contexts: Int64 = batch.column("context").to_numpy().astype(np.int64)
    return contexts


def num_tokens(batch: pa.RecordBatch) -> int:
    """Return the number of tokens of all rows of a batch."""
    return sum(row_lengths(batch))


def decode_chunk(layout: Layout, raw: bytes, *, where: str, entry: ChunkEntry | None = None) -> Chunk:
    """Decode a chunk with its tokens.

    Args:
        layout: Parameters of the codes.
        raw: The Arrow message of the chunk.
        where: Name of the chunk in error messages.
        entry: What the manifest says of the chunk; its numbers of rows and tokens are compared.

    Raises:
        CorruptShardError: If the bytes do not decode, or the numbers differ.
        TokensRemovedError: If the cache was published without its tokens.
    """
    if not layout.has_tokens:
        remedy = (
            "the responses in it cannot be put back: use the cache that it was published from"
            if layout.has_responses
            else "first run 'logit-shards hydrate PATH --data CORPUS --out DIR' with your own copy of the corpus"
        )
        raise TokensRemovedError(
            f"{where}: found a cache published without its tokens, expected rows to train on or read; {remedy}"
        )
    return decode_records(layout, raw, where=where, entry=entry)


def decode_records(layout: Layout, raw: bytes, *, where: str, entry: ChunkEntry | None = None) -> Chunk:
    """Decode a chunk with or without its tokens.

    Without tokens, the result is for checks and statistics alone: its `tokens` and `label_logp` are placeholders.
    Arguments and errors are those of `decode_chunk`, without TokensRemovedError.
    """
    try:
        batch = read_batch(layout, raw)
        streams = streams_of(batch)
        if layout.has_tokens:
            lengths = np.diff(batch.column("tokens").offsets.to_numpy()).astype(np.int64)
        else:
            lengths = np.array(row_lengths(batch), np.int64)
            streams = _with_placeholder_tokens(batch, streams, lengths)
        chunk = decode(layout, streams, lengths, row_infos(batch))
        if (group := layout.relations) is not None:
            counts = {name: np.diff(batch.column(name).offsets.to_numpy()) for name in group.column_widths}
            relations = decode_relations(group, streams, counts, np.diff(chunk.position_starts))
            chunk = replace(chunk, relations=relations)
    except CorruptShardError as error:
        raise CorruptShardError(f"{where}: {error}") from None
    except _DECODE_ERRORS as error:
        raise CorruptShardError(f"{where}: does not decode ({error}); fetch or dump that shard again") from None
    if entry is not None and (len(chunk.rows), len(chunk.tokens)) != (entry.rows, entry.tokens):
        raise CorruptShardError(
            f"{where}: found {len(chunk.rows)} rows and {len(chunk.tokens)} tokens, the manifest says "
            f"{entry.rows} and {entry.tokens}"
        )
    return chunk


def _with_placeholder_tokens(
    batch: pa.RecordBatch, streams: dict[str, npt.NDArray[np.generic]], lengths: Int64
) -> dict[str, npt.NDArray[np.generic]]:
    """Return the streams of a batch without tokens, with the likeliest id as the label of each position.

    Raises:
        CorruptShardError: If no chunk with its tokens has such records.
    """
    if len(streams["tokens"]):
        raise CorruptShardError("tokens: found some, expected none in a cache without its text")
    positions = lengths - _contexts(batch)
    heads = streams["head_count"].astype(np.int64)
    if len(heads) != positions.sum() or heads.sum() != len(streams["head_ids"]):
        raise CorruptShardError("head_count: the number of positions or of head ids is another")
    row_of = np.repeat(np.arange(len(lengths)), positions)
    headless = np.bincount(row_of, heads == 0, len(lengths))
    outside = np.diff(batch.column("realised_codes").offsets.to_numpy())
    if not ((headless <= outside) & (outside <= positions)).all():
        raise CorruptShardError("realised_codes: found more than positions, or fewer than positions without a head")
    first = np.cumsum(heads) - heads
    likeliest = np.zeros(len(heads), np.int32)
    likeliest[heads > 0] = streams["head_ids"][first[heads > 0]]
    tokens = np.zeros(int(lengths.sum()), np.int32)
    tokens[label_mask(lengths, _contexts(batch))] = likeliest
    return {**streams, "tokens": tokens, "realised_codes": np.zeros(int((heads == 0).sum()), np.uint16)}
