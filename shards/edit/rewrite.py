"""How is a shard made of another's rows? Record batches are changed as they are, never decoded and encoded again.

Whatever makes a cache out of caches (withdraw, merge, hydrate, a copy without text) does it here: codes stay bit
for bit what the teacher's worker wrote, and so do the digests of rows.

OUT is claimed first by a note of what is being made, `edit.json`: a run that was killed may be repeated and a
folder that holds something else is refused. The manifest comes last.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from shards.errors import ShardError
from shards.format.batch import num_tokens, read_batch
from shards.format.manifest import MANIFEST_NAME, ChunkEntry, Manifest, ShardEntry
from shards.format.schema import Layout, canonical_json, file_schema, read_file_metadata
from shards.format.side_files import NOTE_NAME, seal_note
from shards.read import Cache
from shards.storage.atomic import cannot_write, file_sha256, rename_durably, write_atomic
from shards.storage.store import OnBytes, Store, ignore_bytes
from shards.write import ZSTD_LEVEL

Change = Callable[[pa.RecordBatch], pa.RecordBatch]


def claim(out: Path, step: str, inputs: Sequence[str]) -> None:
    """Mark `out` as the place where `step` makes a cache of `inputs`. Raises ShardError where it holds another."""
    body = {"step": step, "inputs": list(inputs)}
    note = seal_note(body)
    if out.exists() and not out.is_dir():
        raise ShardError(f"--out {out}: found a file, expected a folder or nothing")
    path = out / NOTE_NAME
    same = path.exists() and path.read_bytes() in (
        note,
        canonical_json(body),
    )  # of an earlier release without its digest
    if same and not (out / MANIFEST_NAME).exists():
        for leftover in out.glob(".*.part"):
            leftover.unlink(missing_ok=True)
    elif path.exists() or (out / MANIFEST_NAME).exists() or any(out.glob("*.arrow")):
        raise ShardError(f"--out {out}: found a cache or a part of another one, expected an empty folder or none")
    else:
        write_atomic(path, note)


def fetch_shard(store: Store, entry: ShardEntry, path: Path, *, on_bytes: OnBytes = ignore_bytes) -> Path:
    """Copy a shard byte for byte, its digest checked, and return `path`."""
    store.download(entry.name, path, size=entry.bytes, sha256=entry.sha256, on_bytes=on_bytes)
    return path


def fetch_files(cache: Cache, out: Path) -> None:
    """Copy what is not a shard: the tokenizer."""
    for file in cache.manifest.files:
        cache.store.download(file.name, out / file.name, size=file.bytes, sha256=file.sha256)


def finish(out: Path, manifest: Manifest) -> Cache:
    """Write the manifest of a cache whose other files are in place, and return the cache."""
    if not manifest.shards:
        raise ShardError(f"--out {out}: no row is left, expected at least one; nothing but {NOTE_NAME} was written")
    named = {s.name for s in manifest.shards}
    for stray in out.glob("*.arrow"):  # of a killed run of another release
        if stray.name not in named:
            stray.unlink()
    write_atomic(out / MANIFEST_NAME, manifest.to_bytes())
    return Cache.of(out, manifest)


def rewrite(
    source: Path,
    entry: ShardEntry,
    change: Change,
    *,
    layout: Layout,
    out: Path,
    name: str = "",
    new_layout: Layout | None = None,
) -> ShardEntry | None:
    """Write the rows that `change` leaves of each chunk of a local, checked shard to a new one in folder `out`.

    Returns its entry, or None where no row is left. Without a `name`, the new shard is named by its place in the
    old one's name and by its rows: other content never has the same name.
    """
    with source.open("rb") as file:
        header = pa.ipc.open_file(file).schema
        about = read_file_metadata(header, where=str(source))
    schema = file_schema(new_layout or layout, task=about["task"], fingerprint=about["fingerprint"])
    temporary = out / f".{entry.name}.{os.getpid()}.part"
    chunks: list[ChunkEntry] = []
    rows = hashlib.sha256()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as file, temporary.open("w+b") as target:
            options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=ZSTD_LEVEL))
            writer = pa.ipc.new_file(target, schema, options=options)
            for chunk in entry.chunks:
                file.seek(chunk.offset)
                batch = change(read_batch(layout, file.read(chunk.length)))
                if batch.num_rows == 0:
                    continue
                batch = pa.RecordBatch.from_arrays(batch.columns, schema=schema)
                target.flush()
                # Arrow writes magic and schema only with the first batch.
                offset = target.seek(0, os.SEEK_END) or 8 + len(schema.serialize())
                writer.write_batch(batch)
                target.flush()
                length = target.seek(0, os.SEEK_END) - offset
                target.seek(offset)
                sha256 = hashlib.sha256(target.read(length)).hexdigest()
                tokens = num_tokens(batch)
                chunks.append(
                    ChunkEntry(offset=offset, length=length, rows=batch.num_rows, tokens=tokens, sha256=sha256)
                )
                for digest in batch.column("row_sha256").to_pylist():
                    rows.update(digest)
            writer.close()
            target.flush()
            os.fsync(target.fileno())
        if not chunks:
            return None
        number = entry.name.removesuffix(".arrow").split("-")[0]
        name = name or f"{number}-{rows.hexdigest()[:12]}.arrow"
        made = ShardEntry(
            name=name,
            bytes=temporary.stat().st_size,
            sha256=file_sha256(temporary),
            rows=sum(c.rows for c in chunks),
            tokens=sum(c.tokens for c in chunks),
            rows_sha256=rows.hexdigest(),
            chunks=tuple(chunks),
        )
        rename_durably(temporary, out / name)
        return made
    except OSError as error:
        raise cannot_write(out / entry.name, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def columns(shard: Path, names: Sequence[str]) -> pa.Table:
    """Return some columns of a local, checked shard, the others not decompressed."""
    with shard.open("rb") as file:
        schema = pa.ipc.open_file(file).schema
        fields = [schema.get_field_index(n) for n in names]
        return pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=fields)).read_all()
