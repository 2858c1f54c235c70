"""Record batches: rows to Arrow and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.errors import CorruptShardError, TokensRemovedError
from shards.format.chunk import Chunk, Float32, Int32, Int64, RowInfo
from shards.format.codec import Streams, decode, encode
from shards.format.manifest import ChunkEntry
from shards.format.schema import Layout, schema


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
    label_logp: Float32
    whitespace_logp: Float32
    entropy: Float32
    log_z: Float32


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
        label_logp=np.concatenate([r.label_logp for r in rows]),
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


def decode_chunk(layout: Layout, raw: bytes, *, where: str, entry: ChunkEntry | None = None) -> Chunk:
    """Decode the bytes of an Arrow message.

    Raises CorruptShardError, naming `where`, on what does not decode, TokensRemovedError where there is no text.
    """
    if layout.tokens == "removed":
        raise TokensRemovedError(
            f"{where}: found a cache published without its tokens, expected rows to train on or read; first run "
            "'logit-shards hydrate PATH --data CORPUS --out DIR' with your own copy of the corpus"
        )
    try:
        batch = read_batch(layout, raw)
        infos = row_infos(batch)
        expected = schema(layout)
        streams = streams_of(batch, (f.name for f in expected if pa.types.is_list(f.type)))
        lengths = np.diff(batch.column("tokens").offsets.to_numpy()).astype(np.int64)
        chunk = decode(layout, streams, lengths, infos)
    except CorruptShardError as error:
        raise CorruptShardError(f"{where}: {error}") from None
    except (pa.ArrowInvalid, pa.ArrowException, OSError, IndexError, KeyError, ValueError) as error:
        raise CorruptShardError(f"{where}: does not decode ({error}); fetch or dump that shard again") from None
    if entry is not None and (len(chunk.rows), len(chunk.tokens)) != (entry.rows, entry.tokens):
        raise CorruptShardError(
            f"{where}: found {len(chunk.rows)} rows and {len(chunk.tokens)} tokens, the manifest says "
            f"{entry.rows} and {entry.tokens}"
        )
    return chunk


def read_batch(layout: Layout, raw: bytes) -> pa.RecordBatch:
    """Return the Arrow record batch of a message."""
    return pa.ipc.read_record_batch(pa.ipc.read_message(pa.py_buffer(raw)), schema(layout))


def row_infos(batch: pa.RecordBatch) -> tuple[RowInfo, ...]:
    """Return where the rows of a batch come from."""
    names = ("document", "window", "byte_start", "byte_end", "source", "path", "licence")
    columns = (batch.column(name).to_pylist() for name in names)
    return tuple(
        RowInfo(document=d.hex(), window=w, byte_start=s, byte_end=e, source=src, path=p, licence=lic)
        for d, w, s, e, src, p, lic in zip(*columns, strict=True)
    )


def row_lengths(batch: pa.RecordBatch) -> list[int]:
    """Return the number of tokens of each row, known even where the tokens were removed: its positions and one."""
    lengths: list[int] = (np.diff(batch.column("tail_codes").offsets.to_numpy()) + 1).tolist()
    return lengths


def num_tokens(batch: pa.RecordBatch) -> int:
    """Return the number of tokens of all rows."""
    return sum(row_lengths(batch))


def record_streams(batch: pa.RecordBatch) -> Streams:
    """Return the list columns of a batch, flat."""
    return streams_of(batch, [f.name for f in batch.schema if pa.types.is_list(f.type)])


def decode_records(layout: Layout, raw: bytes) -> Chunk:
    """Decode a chunk without text, for checks and facts: `tokens` and `label_logp` of the result are made up.

    Raises CorruptShardError on what no chunk with its text could hold.
    """
    batch = read_batch(layout, raw)
    streams = record_streams(batch)
    if len(streams["tokens"]):
        raise CorruptShardError("tokens: found some, expected none in a cache without its text")
    lengths = np.array(row_lengths(batch), np.int64)
    positions = lengths - 1
    heads = streams["head_count"].astype(np.int64)
    if len(heads) != positions.sum() or heads.sum() != len(streams["head_ids"]):
        raise CorruptShardError("head_count: the number of positions or of head ids is another")
    row_of = np.repeat(np.arange(len(lengths)), positions)
    headless = np.bincount(row_of, heads == 0, len(lengths))
    outside = np.diff(batch.column("realised_codes").offsets.to_numpy())
    if not ((headless <= outside) & (outside <= positions)).all():
        raise CorruptShardError("realised_codes: found more than positions, or fewer than positions without a head")
    # As if the text were the likeliest token everywhere.
    first = np.cumsum(heads) - heads
    likeliest = np.zeros(len(heads), np.int32)
    likeliest[heads > 0] = streams["head_ids"][first[heads > 0]]
    tokens = np.zeros(int(lengths.sum()), np.int32)
    is_position = np.ones(len(tokens), bool)
    is_position[np.cumsum(lengths) - lengths] = False
    tokens[is_position] = likeliest
    made_up = {**streams, "tokens": tokens, "realised_codes": np.zeros(int((heads == 0).sum()), np.uint16)}
    return decode(layout, made_up, lengths, row_infos(batch))
