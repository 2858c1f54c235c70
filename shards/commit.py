"""Give finished shards their names, and recover the entries of those that have them.

A shard gets its name when all its bytes are durable, and the first writer of a name wins. Afterwards the file never
changes, whoever repeats the task. So an entry that a kill prevented can be made from the shard, by any worker, with
the same content.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa

from shards.format.batch import num_tokens, row_digests
from shards.format.manifest import ChunkEntry, ShardEntry
from shards.format.schema import canonical_json
from shards.format.side_files import ENTRY_SUFFIX
from shards.storage.atomic import sync_path, write_atomic

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_MAGIC_BYTES = 8
_DAMAGE = (pa.ArrowException, OSError, ValueError, LookupError, AttributeError, TypeError, OverflowError)
"""Exceptions that reading a damaged shard raises."""


def entry_path(shard: Path) -> Path:
    """Return the path of the entry of a shard."""
    return shard.with_name(shard.name + ENTRY_SUFFIX)


def read_entry(shard: Path) -> ShardEntry | None:
    """Return the entry of a complete shard, None if shard or entry is missing, damaged or of another size.

    The digest is not compared: `logit-shards verify` and every read of a chunk do that.
    """
    try:
        entry = ShardEntry.from_dict(json.loads(entry_path(shard).read_bytes()))
        return entry if shard.stat().st_size == entry.bytes else None
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None


def recover_entry(shard: Path, schema: pa.Schema) -> ShardEntry | None:
    """Return the entry of a shard. If it is missing, check every row of the shard and write the entry again.

    Args:
        shard: Path of the shard.
        schema: `shards.format.schema.file_schema` of its layout, task and fingerprint.

    Returns:
        The entry, None if there is no shard, or a damaged one, or one of other inputs.

    Raises:
        StoreError: If the entry cannot be written.
    """
    entry = read_entry(shard)
    if entry is None and shard.exists():
        entry = _entry_from_content(shard, schema)
        if entry is not None:
            write_atomic(entry_path(shard), canonical_json(entry.to_dict()))
    return entry


def commit_shard(temporary: Path, shard: Path, entry: ShardEntry, schema: pa.Schema) -> ShardEntry:
    """Give a finished, synced file its name and its entry.

    A shard of the same task that another worker committed is kept; a damaged one is replaced. On a filesystem without
    hard links, the last writer wins instead: two workers must not share a task there.

    Args:
        temporary: The finished file.
        shard: Its final path.
        entry: Its entry.
        schema: Its schema with metadata.

    Returns:
        The entry of the shard that has the name now.
    """
    if not shard.exists():  # the entry of a deleted file must not pass for this one's
        entry_path(shard).unlink(missing_ok=True)
    try:
        os.link(temporary, shard)
    except FileExistsError:
        other = recover_entry(shard, schema)
        if other is not None:
            return other
        os.replace(temporary, shard)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.replace(temporary, shard)
    sync_path(shard.parent)
    write_atomic(entry_path(shard), canonical_json(entry.to_dict()))
    return entry


def _entry_from_content(shard: Path, schema: pa.Schema) -> ShardEntry | None:
    """Return the entry that follows from a shard's content, None if the shard is damaged."""
    rows = hashlib.sha256()
    try:
        raw = shard.read_bytes()
        reader = pa.ipc.open_file(pa.BufferReader(raw))
        if not reader.schema.equals(schema, check_metadata=True):
            return None
        chunks: list[ChunkEntry] = []
        for i, (offset, end) in enumerate(_message_bounds(raw, reader.num_record_batches)):
            batch = reader.get_batch(i)
            batch.validate(full=True)
            for digest, stated in zip(row_digests(batch), batch.column("row_sha256").to_pylist(), strict=True):
                if digest != stated:
                    return None
                rows.update(digest)
            sha256 = hashlib.sha256(raw[offset:end]).hexdigest()
            chunks.append(
                ChunkEntry(
                    offset=offset, length=end - offset, rows=batch.num_rows, tokens=num_tokens(batch), sha256=sha256
                )
            )
    except _DAMAGE:
        return None  # the task is done again
    if not chunks:
        return None
    return ShardEntry(
        name=shard.name,
        bytes=len(raw),
        sha256=hashlib.sha256(raw).hexdigest(),
        rows=sum(c.rows for c in chunks),
        tokens=sum(c.tokens for c in chunks),
        rows_sha256=rows.hexdigest(),
        chunks=tuple(chunks),
    )


def _message_bounds(raw: bytes, num_chunks: int) -> list[tuple[int, int]]:
    """Return the first byte and the end of the Arrow message of each chunk of a shard."""
    source = pa.BufferReader(raw)
    source.seek(_MAGIC_BYTES)  # a stream follows: the schema, then the chunks
    pa.ipc.read_message(source)
    bounds = []
    for _ in range(num_chunks):
        offset = source.tell()
        pa.ipc.read_message(source)
        bounds.append((offset, source.tell()))
    return bounds
