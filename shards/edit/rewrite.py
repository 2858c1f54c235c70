"""Make shards from the rows of other shards, without decoding their records.

Every operation that makes a cache from caches (withdraw, merge, hydrate, a copy without tokens) uses this module. So
codes and digests of rows stay bit for bit as the teacher's worker wrote them.

The output directory is first marked with a note of the operation, `edit.json`. A killed run may be repeated, and a
directory with other content is refused. The manifest is written last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.errors import ShardError
from shards.format.batch import read_batch
from shards.format.manifest import MANIFEST_NAME, Manifest, ShardEntry
from shards.format.schema import Layout, canonical_json, file_schema, read_file_metadata
from shards.format.side_files import NOTE_NAME, seal_note
from shards.read import Cache
from shards.reports.statistics import measure
from shards.storage.atomic import cannot_write, rename_durably, write_atomic
from shards.storage.store import Store
from shards.storage.temp_files import temp_path
from shards.storage.transfer import OnBytes, ignore_bytes
from shards.write import BatchWriter

Change = Callable[[pa.RecordBatch], pa.RecordBatch]


def claim_output(out: Path, step: str, inputs: Sequence[str]) -> None:
    """Mark a directory as the output of an operation.

    Args:
        out: The directory; created if needed.
        step: Name of the operation.
        inputs: Digests of its inputs.

    Raises:
        ShardError: If the directory holds a cache or the output of another operation.
    """
    body = {"step": step, "inputs": list(inputs)}
    if out.exists() and not out.is_dir():
        raise ShardError(f"--out {out}: found a file, expected a folder or nothing")
    path = out / NOTE_NAME
    # Notes of earlier releases have no digest.
    is_same = path.exists() and path.read_bytes() in (seal_note(body), canonical_json(body))
    if is_same and not (out / MANIFEST_NAME).exists():
        for leftover in out.glob(".*.part"):
            leftover.unlink(missing_ok=True)
    elif path.exists() or (out / MANIFEST_NAME).exists() or any(out.glob("*.arrow")):
        raise ShardError(f"--out {out}: found a cache or a part of another one, expected an empty folder or none")
    else:
        write_atomic(path, seal_note(body))


def fetch_shard(store: Store, shard: ShardEntry, path: Path, *, on_bytes: OnBytes = ignore_bytes) -> Path:
    """Copy a shard byte for byte, check its digest, and return `path`."""
    store.download(shard.name, path, size=shard.bytes, sha256=shard.sha256, on_bytes=on_bytes)
    return path


def fetch_files(cache: Cache, out: Path) -> None:
    """Copy the files of the manifest that are not shards: the tokenizer."""
    for file in cache.manifest.files:
        cache.store.download(file.name, out / file.name, size=file.bytes, sha256=file.sha256)


def finish(out: Path, manifest: Manifest) -> Cache:
    """Write the manifest of a cache whose other files are complete.

    Raises:
        ShardError: If the cache has no shard.
    """
    if not manifest.shards:
        raise ShardError(f"--out {out}: no row is left, expected at least one; nothing but {NOTE_NAME} was written")
    names = {s.name for s in manifest.shards}
    for file in out.glob("*.arrow"):
        if file.name not in names:  # of a killed run of another release
            file.unlink()
    write_atomic(out / MANIFEST_NAME, manifest.to_bytes())
    return Cache.of(out, manifest)


def measure_and_finish(out: Path, manifest: Manifest) -> Cache:
    """Write the manifest as `finish` does, and first update its report if it has one."""
    if manifest.report and manifest.shards:
        manifest = replace(manifest, report=measure(Cache.of(out, manifest)))
    return finish(out, manifest)


def rewrite(
    source: Path,
    shard: ShardEntry,
    change: Change,
    *,
    layout: Layout,
    out: Path,
    name: str = "",
    new_layout: Layout | None = None,
) -> ShardEntry | None:
    """Write the changed record batches of a shard to a new shard.

    Args:
        source: Local copy of the shard, with the right digest.
        shard: Its entry.
        change: Function from each record batch to the one to write. Empty batches are left out.
        layout: Layout of the shard.
        out: Directory of the new shard.
        name: Name of the new shard. By default the number in the old name, and the digest of the rows, so that other
            content has another name.
        new_layout: Layout of the new shard; by default the same.

    Returns:
        The entry of the new shard, None if no row is left.

    Raises:
        StoreError: If the new shard cannot be written.
    """
    try:
        with source.open("rb") as file:
            metadata = read_file_metadata(pa.ipc.open_file(file).schema, where=str(source))
            schema = file_schema(new_layout or layout, task=metadata["task"], fingerprint=metadata["fingerprint"])
            out.mkdir(parents=True, exist_ok=True)
            with BatchWriter(temp_path(out / shard.name), schema) as writer:
                for chunk in shard.chunks:
                    file.seek(chunk.offset)
                    batch = change(read_batch(layout, file.read(chunk.length)))
                    if batch.num_rows:
                        writer.write(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
                if not writer.chunks:
                    return None
                entry = writer.finish()
                entry = replace(entry, name=name or content_name(shard.name, entry.rows_sha256))
                rename_durably(writer.path, out / entry.name)
                return entry
    except OSError as error:
        raise cannot_write(out / shard.name, error) from None


def content_name(name: str, rows_sha256: str) -> str:
    """Return a name for a shard with other rows: the number in the old name, and the digest of the rows."""
    number = name.removesuffix(".arrow").split("-")[0]
    return f"{number}-{rows_sha256[:12]}.arrow"


def keep_rows(mask: npt.NDArray[np.bool_]) -> Change:
    """Return a change that keeps the marked rows.

    Args:
        mask: Whether to keep each row of a shard, in the order of its batches.
    """
    begin = 0

    def change(batch: pa.RecordBatch) -> pa.RecordBatch:
        nonlocal begin
        part = mask[begin : begin + batch.num_rows]
        begin += batch.num_rows
        return batch if part.all() else batch.filter(pa.array(part))

    return change


def read_columns(shard: Path, names: Sequence[str]) -> pa.Table:
    """Return some columns of a local shard. The others are not decompressed."""
    with shard.open("rb") as file:
        schema = pa.ipc.open_file(file).schema
        fields = [schema.get_field_index(n) for n in names]
        return pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=fields)).read_all()
