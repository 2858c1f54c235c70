"""Which shards are complete? A shard under its own name is; its entry beside it says what is in it.

A shard gets its name only when all its bytes are durable, and the first writer of a name wins: a file never changes
once it is there, whoever else does the same task. So an entry that was lost to a kill is made again from the shard,
by anyone, with the same content.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa

from shards.format.manifest import ChunkEntry, ShardEntry
from shards.format.schema import canonical_json
from shards.storage.atomic import sync_folder, write_atomic

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_MAGIC_BYTES = 8


def entry_path(shard: Path) -> Path:
    """Return where the entry of a shard lies."""
    return shard.with_name(shard.name + ".json")


def read_entry(shard: Path) -> ShardEntry | None:
    """Return the entry of a complete shard, None where shard or entry is missing, damaged or of another size.

    The size is compared, not the digest: `logit-shards verify` and every read of a chunk check that.
    """
    try:
        entry = ShardEntry.from_dict(json.loads(entry_path(shard).read_bytes()))
        return entry if shard.stat().st_size == entry.bytes else None
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None


def recover_entry(shard: Path, schema: pa.Schema) -> ShardEntry | None:
    """Return the entry of a shard; where it is lost, check every row of the shard and write the entry again.

    `schema` is `shards.format.schema.file_schema` of its layout, task and fingerprint. None where there is no shard,
    or one
    that is damaged or of other inputs. Raises StoreError where the entry cannot be written.
    """
    entry = read_entry(shard)
    if entry is None and shard.exists():
        entry = _checked(shard, schema)
        if entry is not None:
            write_atomic(entry_path(shard), canonical_json(entry.to_dict()))
    return entry


def settle(temporary: Path, shard: Path, entry: ShardEntry, schema: pa.Schema) -> ShardEntry:
    """Give a finished, synced file its name and its entry, and return the entry of what has that name then.

    Another worker's shard of the same task stays, and its entry is returned; a damaged one is replaced. Where the
    file system knows no hard links, the last writer wins instead: do not let two workers share a task there.
    """
    if not shard.exists():  # the entry of a file that is gone would pass for this one's
        entry_path(shard).unlink(missing_ok=True)
    try:
        os.link(temporary, shard)
    except FileExistsError:
        theirs = recover_entry(shard, schema)
        if theirs is not None:
            return theirs
        os.replace(temporary, shard)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.replace(temporary, shard)
    sync_folder(shard.parent)
    write_atomic(entry_path(shard), canonical_json(entry.to_dict()))
    return entry


def _checked(shard: Path, schema: pa.Schema) -> ShardEntry | None:
    """Return the entry that a shard's content asks for, None where a row is not what its digest says."""
    from shards.format.batch import (
        row_digest,  # which writes entries itself
        row_infos,
    )

    chunks: list[ChunkEntry] = []
    rows = hashlib.sha256()
    try:
        raw = shard.read_bytes()
        source = pa.BufferReader(raw)
        reader = pa.ipc.open_file(source)
        if not reader.schema.equals(schema, check_metadata=True):
            return None
        source.seek(_MAGIC_BYTES)  # what follows is a stream: the schema, then the chunks
        pa.ipc.read_message(source)
        for i in range(reader.num_record_batches):
            offset = source.tell()
            pa.ipc.read_message(source)
            end = source.tell()
            batch = reader.get_batch(i)
            batch.validate(full=True)
            lists = {f.name: batch.column(f.name) for f in schema if pa.types.is_list(f.type)}
            values = {name: column.flatten().to_numpy() for name, column in lists.items()}
            starts = {name: column.offsets.to_numpy() for name, column in lists.items()}
            promised = batch.column("row_sha256").to_pylist()
            for r, info in enumerate(row_infos(batch)):
                streams = {name: values[name][starts[name][r] : starts[name][r + 1]] for name in lists}
                if row_digest(info, streams, schema) != promised[r]:
                    return None
                rows.update(promised[r])
            chunks.append(
                ChunkEntry(
                    offset=offset,
                    length=end - offset,
                    rows=batch.num_rows,
                    tokens=len(values["tokens"]),
                    sha256=hashlib.sha256(raw[offset:end]).hexdigest(),
                )
            )
    except (pa.ArrowException, OSError, ValueError, LookupError, AttributeError, TypeError, OverflowError):
        return None  # damaged: the task is done again
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
