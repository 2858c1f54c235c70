"""The bytes of an evidence file: a head with the columns, and chunks that are found again behind a damaged one.

The file is an Arrow IPC stream. Each chunk is the message of one record batch, whose metadata holds a digest of the
values. Only a chunk that matches its digest is read. Where one does not, its length is not trusted either: the search
for the next one begins right behind its first bytes, so damage costs no chunk but those that it touches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from evalkit.errors import EvalError
from evalkit.rerank.call_output import CallOutput

EVIDENCE_VERSION = 1
"""Version of the columns and of the properties of values that they hold."""

SCHEMA = pa.schema(
    [
        pa.field("key", pa.binary(16), nullable=False),
        pa.field("program", pa.binary(16), nullable=False),
        pa.field("call", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("exception", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("number", pa.float64(), nullable=False),
        pa.field("truth", pa.int8(), nullable=False),
        pa.field("cpu_s", pa.float64(), nullable=False),
    ],
    metadata={"evidence_version": str(EVIDENCE_VERSION)},
)
"""Columns of the file: `key`, what it digests for readers (`program`, `call`), and the fields of `CallOutput`."""

HEAD: bytes = SCHEMA.serialize().to_pybytes()
"""Beginning of a file."""
_MARK = b"\xff\xff\xff\xff"
"""First bytes of each message. No column holds them: they are no UTF-8, and a digest of them has no match."""
_UNREADABLE = (pa.ArrowException, OSError, EOFError, ValueError, TypeError, StopIteration)
"""Exceptions of Arrow on damaged bytes, beside `MemoryError`: a wrong length may ask for any amount of memory."""
_CHUNK_MEMORY = 64 << 20
"""Bytes that suffice for any chunk: it has some thousands of rows."""

Row = tuple[bytes, bytes, str, CallOutput]
"""Key, program, call and output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceChunk:
    """One chunk that matches its digest."""

    start: int
    end: int
    """Its place in the file, in bytes."""
    batch: pa.RecordBatch
    version: str
    """The versions that decided its outputs, as the writer named them."""


def head_end(path: Path, content: bytes) -> int:
    """Return the offset at which the chunks of a file begin; 0 if its head is damaged.

    Raises:
        EvalError: It is no evidence file, or has other columns.
    """
    if content.startswith(HEAD):
        return len(HEAD)
    try:
        source = pa.BufferReader(content)
        schema, end = pa.ipc.open_stream(source).schema, int(source.tell())
    except (*_UNREADABLE, MemoryError):
        schema, end = None, 0
    first = next(chunks(content, 0), None)
    if schema is not None and schema.equals(SCHEMA, check_metadata=True) and (first is None or first.start >= end):
        return end
    if first is not None and first.version.endswith(f"evidence {EVIDENCE_VERSION}"):  # only the head is damaged
        return 0
    if schema is None:
        raise EvalError(f"{path}: is no evidence file; name another file, or remove this one")
    raise EvalError(
        f"{path}: has other columns than evidence of version {EVIDENCE_VERSION}; name another file, or remove this one"
    )


def chunks(content: bytes, start: int) -> Iterator[EvidenceChunk]:
    """Yield the chunks of a file from `start` on that match their digest, in their order.

    A chunk whose length is damaged may seem to hold the one behind it. Then only the latter counts.
    """
    found = _next_chunk(content, start, len(content))
    while found is not None:
        inner = _next_chunk(content, found.start + 1, found.end)
        if inner is None:
            yield found
        found = inner or _next_chunk(content, found.end, len(content))


def _next_chunk(content: bytes, start: int, stop: int) -> EvidenceChunk | None:
    """Return the first chunk that matches its digest and begins at `start` or behind it, before `stop`."""
    buffer = pa.py_buffer(content)
    while (start := content.find(_MARK, start, stop + len(_MARK) - 1)) >= 0:
        if (chunk := _chunk_at(buffer, start)) is not None:
            return chunk
        start += 1
    return None


def _chunk_at(buffer: pa.Buffer, start: int) -> EvidenceChunk | None:
    """Return the chunk that begins at `start`; None if there is none that matches its digest.

    Raises:
        MemoryError: There is too little memory for a chunk.
    """
    try:
        source = pa.BufferReader(buffer.slice(start))
        pa.ipc.read_message(source)
        end = start + int(source.tell())
        reader = pa.ipc.open_stream(HEAD + buffer.slice(start, end - start).to_pybytes())
        batch, metadata = reader.read_next_batch_with_custom_metadata()
        batch.validate(full=True)
        fields = {name.decode(): text.decode() for name, text in (metadata or {}).items()}
        if fields.get("blake2b") != _batch_digest(batch) or "version" not in fields:
            return None
    except _UNREADABLE:
        return None
    except MemoryError:
        bytearray(_CHUNK_MEMORY)  # raises the error again where memory is short, and a good chunk may be unreadable
        return None
    return EvidenceChunk(start=start, end=end, batch=batch, version=fields["version"])


def chunk_bytes(rows: Sequence[Row], version: str) -> bytes:
    """Return rows as a chunk: the message of one record batch."""
    keys, programs, calls, outputs = zip(*rows, strict=True)
    columns: list[Any] = [keys, programs, [_valid_text(call) for call in calls], *zip(*outputs, strict=True)]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    batch = pa.record_batch(arrays, schema=SCHEMA)
    sink = pa.BufferOutputStream()
    writer = pa.ipc.new_stream(sink, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd"))
    writer.write_batch(batch, custom_metadata={"version": version, "blake2b": _batch_digest(batch)})
    end = sink.tell()
    writer.close()
    content: bytes = sink.getvalue().to_pybytes()[len(HEAD) : end]
    return content


def _valid_text(text: str) -> str:
    """Return `text` with lone surrogates escaped: Arrow holds UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _batch_digest(batch: pa.RecordBatch) -> str:
    """Return the digest of a batch's values and offsets; no column has nulls."""
    digest = hashlib.blake2b(digest_size=16)
    for column in batch.columns:
        for buffer in column.buffers()[1:]:
            digest.update(memoryview(buffer))
    return digest.hexdigest()
