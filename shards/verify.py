"""Check digests, schema and invariants of a whole cache; find every problem, not the first.

Checked: each file's size and digest; each shard's schema, metadata and place in the manifest; each chunk's digest;
each row's digest; ids below the vocabulary, finite values, mass within [0, 1] and equal to one in sum, heads in
falling order, draws ascending and outside the head, windows of a document that do not overlap.

Of a cache without its text: all but what needs the tokens, which is the digests of rows and the realised codes.

Not checked: whether the teacher said so (re-score rows with `teacher-dump --check`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from shards.errors import CorruptShardError, ShardError
from shards.format.batch import decode_chunk, decode_records, read_batch, row_digest, row_infos
from shards.format.chunk import Chunk
from shards.format.manifest import MANIFEST_NAME, ChunkEntry, ShardEntry
from shards.format.schema import Layout, read_file_metadata, schema
from shards.format.side_files import side_problems
from shards.read import Cache


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something that is not as it should be."""

    file: str
    """Name of the file that is to be had again."""
    text: str
    """What was found there, in one line that names the file."""


def verify(cache: Cache, *, progress: Callable[[int], None] = lambda tokens: None) -> list[str]:
    """Return all problems found, each a line that names its file; an empty list for a sound cache.

    `progress` is called with the number of tokens that were checked since the last call.
    """
    return [p.text for p in find_problems(cache, progress=progress)]


def find_problems(cache: Cache, *, progress: Callable[[int], None] = lambda tokens: None) -> Iterator[Problem]:
    """Yield all problems as they are found."""
    for file in cache.manifest.files:
        for text in _file_problems(cache, file.name, file.bytes, file.sha256):
            yield Problem(file=file.name, text=text)
    seen: dict[tuple[str, int], str] = {}
    first = 0
    for entry in cache.manifest.shards:
        for text in _shard_problems(cache, entry, first, seen, progress):
            yield Problem(file=entry.name, text=text)
        first += len(entry.chunks)
    for name, text in side_problems(cache):
        yield Problem(file=name, text=text)


def fix_plan(cache: Cache, problems: Sequence[Problem]) -> dict[str, Any]:
    """Return, as JSON, which files to fetch or dump again, each with what is wrong with it."""
    wrong: dict[str, list[str]] = {}
    for problem in problems:
        wrong.setdefault(problem.file, []).append(problem.text)
    shards = {s.name: s for s in cache.manifest.shards}
    files = {f.name: f for f in cache.manifest.files}
    again: list[dict[str, Any]] = []
    for name, texts in wrong.items():
        about = shards.get(name) or files.get(name)
        kind = "shard" if name in shards else "file"
        if about is None:
            kind = "manifest" if name == MANIFEST_NAME else "side file"
            again.append({"name": name, "kind": kind, "problems": texts})
            continue
        again.append({"name": name, "kind": kind, "bytes": about.bytes, "sha256": about.sha256, "problems": texts})
    return _plan(cache.store.root, cache.manifest_sha256, again)


def manifest_plan(path: str, problem: str) -> dict[str, Any]:
    """Return the plan for a cache whose manifest is missing or damaged: nothing else can be checked before."""
    return _plan(path, None, [{"name": MANIFEST_NAME, "kind": "manifest", "problems": [problem]}])


def _plan(path: str, manifest_sha256: str | None, again: list[dict[str, Any]]) -> dict[str, Any]:
    remove = [n for a in again for n in (a["name"], *([f"{a['name']}.json"] if a["kind"] == "shard" else []))]
    damaged = any(a["kind"] != "side file" for a in again)
    return {
        "path": path,
        "manifest_sha256": manifest_sha256,
        "sound": not again,
        "again": again,
        "to_fetch": f"logit-shards fetch URL {path}" if damaged else None,
        "to_dump": {
            "delete": list(dict.fromkeys([*remove, MANIFEST_NAME])) if damaged else remove,
            "run": "teacher-dump with the same settings" if damaged else None,
        }
        if again
        else None,
    }


def _shard_problems(
    cache: Cache,
    entry: ShardEntry,
    first: int,
    seen: dict[tuple[str, int], str],
    progress: Callable[[int], None],
) -> Iterator[str]:
    layout = cache.manifest.layout
    yield from _file_problems(cache, entry.name, entry.bytes, entry.sha256)
    yield from _header_problems(cache, entry)
    digests = hashlib.sha256()
    for i in range(first, first + len(entry.chunks)):
        try:
            where, chunk_entry, raw = cache.chunk_bytes(i)
            if layout.tokens == "kept":
                chunk = decode_chunk(layout, raw, where=where, entry=chunk_entry)
            else:
                chunk = _decode_records(layout, raw, where=where, entry=chunk_entry)
        except ShardError as error:
            yield str(error)
            continue
        yield from (f"{where}: {p}" for p in _row_problems(cache, raw, digests))
        yield from (f"{where}: {p}" for p in chunk_problems(chunk, layout.vocab_size))
        for info in chunk.rows:
            key = (info.document, info.window)
            if key in seen:
                yield f"{where}: window {info.window} of document {info.document[:12]} is also in {seen[key]}"
            seen[key] = where
        progress(len(chunk.tokens))
    if digests.hexdigest() != entry.rows_sha256:
        yield f"{cache.store.root}/{entry.name}: the rows' digests are not those of the manifest"


def _decode_records(layout: Layout, raw: bytes, *, where: str, entry: ChunkEntry) -> Chunk:
    try:
        chunk = decode_records(layout, raw)
    except (ValueError, IndexError, KeyError, pa.ArrowException, OSError) as error:
        raise CorruptShardError(f"{where}: does not decode ({error}); fetch that shard again") from None
    if (len(chunk.rows), len(chunk.tokens)) != (entry.rows, entry.tokens):
        raise CorruptShardError(
            f"{where}: found {len(chunk.rows)} rows and {len(chunk.tokens)} tokens, the manifest says "
            f"{entry.rows} and {entry.tokens}"
        )
    return chunk


def _file_problems(cache: Cache, name: str, size: int, sha256: str) -> Iterator[str]:
    where = f"{cache.store.root}/{name}"
    try:
        raw = cache.store.read(name)
    except ShardError as error:
        yield str(error)
        return
    if len(raw) != size:
        yield f"{where}: found {len(raw)} bytes, the manifest says {size}"
    elif hashlib.sha256(raw).hexdigest() != sha256:
        yield f"{where}: the digest is not that of the manifest"


def _header_problems(cache: Cache, entry: ShardEntry) -> Iterator[str]:
    where = f"{cache.store.root}/{entry.name}"
    try:
        reader = pa.ipc.open_file(pa.py_buffer(cache.store.read(entry.name)))
        about = read_file_metadata(reader.schema, where=where)
    except (pa.ArrowException, OSError) as error:
        yield f"{where}: not an Arrow file ({error})"
        return
    except ShardError as error:
        yield str(error)
        return
    if not reader.schema.equals(schema(cache.manifest.layout)):
        yield f"{where}: the columns are not those of the manifest's layout"
    if about.get("layout") != cache.manifest.layout.to_dict():
        yield f"{where}: the layout in the file is not that of the manifest"
    if reader.num_record_batches != len(entry.chunks):
        yield f"{where}: found {reader.num_record_batches} chunks, the manifest says {len(entry.chunks)}"


def _row_problems(cache: Cache, raw: bytes, digests: hashlib._Hash) -> Iterator[str]:
    batch = read_batch(cache.manifest.layout, raw)
    lists = [f.name for f in batch.schema if pa.types.is_list(f.type)]
    promised = batch.column("row_sha256").to_pylist()
    values = {name: batch.column(name).flatten().to_numpy() for name in lists}
    starts = {name: batch.column(name).offsets.to_numpy() for name in lists}
    for r, info in enumerate(row_infos(batch)):
        streams = {name: values[name][starts[name][r] : starts[name][r + 1]] for name in lists}
        if cache.manifest.layout.tokens == "removed":  # the digest is that of the row with its tokens
            digests.update(promised[r])
            continue
        found = row_digest(info, streams, batch.schema)
        digests.update(found)
        if found != promised[r]:
            yield f"row {r}: the content is not what the row's digest says"


def chunk_problems(chunk: Chunk, vocab_size: int) -> Iterator[str]:
    """Yield what in a decoded chunk no teacher could have said."""
    for name, ids in (("tokens", chunk.tokens), ("head_ids", chunk.head_ids), ("draw_ids", chunk.draw_ids)):
        if len(ids) and (ids.min() < 0 or ids.max() >= vocab_size):
            yield f"{name}: ids from {ids.min()} to {ids.max()}, expected 0 to {vocab_size - 1}"
    for name in ("label_logp", "entropy", "log_z", "head_probs", "tail_mass"):
        if not np.isfinite(getattr(chunk, name)).all():
            yield f"{name}: values that are not finite"
    if len(chunk.label_logp) and chunk.label_logp.max() > 0:
        yield "label_logp: above 0"
    if len(chunk.tail_mass) and not (chunk.tail_mass.min() >= 0 and chunk.tail_mass.max() <= 1):
        yield "tail_mass: outside [0, 1]"
    heads, draws = np.diff(chunk.head_starts), np.diff(chunk.draw_starts)
    head_owner, draw_owner = np.repeat(np.arange(len(heads)), heads), np.repeat(np.arange(len(draws)), draws)
    total = chunk.tail_mass.astype(np.float64) + np.bincount(head_owner, chunk.head_probs, len(heads))
    if not (total == 1).all():
        yield f"mass: sums from {total.min()} to {total.max()}, expected exactly 1"
    if ((np.diff(chunk.head_probs) > 0) & (np.diff(head_owner) == 0)).any():
        yield "head_probs: rising within a position"
    if ((np.diff(chunk.draw_ids) < 0) & (np.diff(draw_owner) == 0)).any():
        yield "draw_ids: falling within a position"
    head_keys = head_owner.astype(np.int64) * vocab_size + chunk.head_ids
    if len(np.unique(head_keys)) != len(head_keys):
        yield "head_ids: an id twice within a position"
    if np.isin(draw_owner.astype(np.int64) * vocab_size + chunk.draw_ids, head_keys).any():
        yield "draw_ids: a draw that is in the head"
    if any(info.byte_end < info.byte_start for info in chunk.rows):
        yield "rows: a window that ends before it begins"
