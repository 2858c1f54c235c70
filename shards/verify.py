"""Check the digests, the schema and the invariants of a whole cache, and report every problem.

Checked: size and digest of each file; schema, metadata and number of chunks of each shard; digest of each chunk and
each row; ids below the vocabulary size, finite values, masses within [0, 1] that sum to exactly 1, falling heads,
ascending draws outside the head; the context of each row within it, and its messages in canonical form; each window
of a document once; side files.

In a cache without tokens, the digests of rows and the codes of labels outside the head cannot be checked.

Each file is read once: verifying a cache in a bucket downloads each shard once.

Not checked: whether the teacher assigns these probabilities. `teacher-dump --check` scores rows again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from shards.errors import IncompleteCacheError, ShardError
from shards.format.batch import decode_records, read_batch, row_digests
from shards.format.chunk import Chunk
from shards.format.invariants import chunk_problems
from shards.format.manifest import MANIFEST_NAME, FileEntry, ShardEntry
from shards.format.schema import read_file_metadata, schema
from shards.format.side_files import ENTRY_SUFFIX, PROBLEM_OF, entry_problem, manifest_problem
from shards.read import Cache, check_chunk

OnTokens = Callable[[int], None]
"""Progress callback: gets the number of tokens checked since the last call."""

_Windows = dict[tuple[str, int], str]
"""For each window of a document, the chunk that it was found in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheProblem:
    """A file of a cache that differs from what the manifest or the format says."""

    file: str
    """Name of the file to fetch, dump or delete."""
    text: str
    """The difference, in one line that names the file."""


def ignore_tokens(_: int) -> None:
    """Do nothing: the progress callback for checks that nobody watches."""


def verify(cache: Cache, *, on_tokens: OnTokens = ignore_tokens) -> list[str]:
    """Return all problems of a cache, one line each. The list of a sound cache is empty."""
    return [problem.text for problem in find_problems(cache, on_tokens=on_tokens)]


def find_problems(cache: Cache, *, on_tokens: OnTokens = ignore_tokens) -> Iterator[CacheProblem]:
    """Yield the problems of a cache as they are found."""
    for file in cache.manifest.files:
        _, problem = _read_file(cache, file)
        if problem is not None:
            yield CacheProblem(file=file.name, text=problem)
    windows: _Windows = {}
    for shard in cache.manifest.shards:
        for text in _shard_problems(cache, shard, windows, on_tokens):
            yield CacheProblem(file=shard.name, text=text)
    yield from _side_file_problems(cache)


def unknown_files(cache: Cache) -> list[str]:
    """Return the names in the cache's directory that no check covers; [] if the directory cannot be listed."""
    try:
        names = cache.store.names()
    except ShardError:
        return []
    manifest = cache.manifest
    known = {MANIFEST_NAME, *PROBLEM_OF, "lost+found"}
    known |= {name for shard in manifest.shards for name in (shard.name, shard.name + ENTRY_SUFFIX)}
    known |= {file.name.partition("/")[0] for file in manifest.files}
    return sorted(name for name in names if name not in known and not name.startswith("."))


def fix_plan(cache: Cache, problems: Sequence[CacheProblem]) -> dict[str, Any]:
    """Return, as JSON, the files to fetch or dump again, each with its problems."""
    texts: dict[str, list[str]] = {}
    for problem in problems:
        texts.setdefault(problem.file, []).append(problem.text)
    shards = {s.name: s for s in cache.manifest.shards}
    files = {f.name: f for f in cache.manifest.files}
    again: list[dict[str, Any]] = []
    for name, lines in texts.items():
        entry = shards.get(name) or files.get(name)
        if entry is None:
            kind = "manifest" if name == MANIFEST_NAME else "side file"
            again.append({"name": name, "kind": kind, "problems": lines})
        else:
            kind = "shard" if name in shards else "file"
            again.append({"name": name, "kind": kind, "bytes": entry.bytes, "sha256": entry.sha256, "problems": lines})
    return _plan(cache.store.root, cache.manifest_sha256, again)


def manifest_plan(path: str, problem: str) -> dict[str, Any]:
    """Return the plan for a cache without a sound manifest, of which nothing else can be checked."""
    return _plan(path, None, [{"name": MANIFEST_NAME, "kind": "manifest", "problems": [problem]}])


def _plan(path: str, manifest_sha256: str | None, again: list[dict[str, Any]]) -> dict[str, Any]:
    remove = [n for a in again for n in (a["name"], *([a["name"] + ENTRY_SUFFIX] if a["kind"] == "shard" else []))]
    is_damaged = any(a["kind"] != "side file" for a in again)
    return {
        "path": path,
        "manifest_sha256": manifest_sha256,
        "sound": not again,
        "again": again,
        "to_fetch": f"logit-shards fetch URL {path}" if is_damaged else None,
        "to_dump": {
            "delete": list(dict.fromkeys([*remove, MANIFEST_NAME])) if is_damaged else remove,
            "run": "teacher-dump with the same settings" if is_damaged else None,
        }
        if again
        else None,
    }


def _read_file(cache: Cache, file: FileEntry | ShardEntry) -> tuple[bytes | None, str | None]:
    """Return the content of a file, None if it cannot be read, and its problem, None if its size and digest fit.

    Over a network, a file with another digest is read twice: the reply may be damaged.
    """
    where = f"{cache.store.root}/{file.name}"
    raw = b""
    for _ in range(1 if cache.store.is_local else 2):
        try:
            raw = cache.store.read(file.name, num_bytes=file.bytes)
        except ShardError as error:
            return None, str(error)
        if len(raw) == file.bytes and hashlib.sha256(raw).hexdigest() == file.sha256:
            return raw, None
    if len(raw) != file.bytes:
        return raw, f"{where}: found {len(raw)} bytes, the manifest says {file.bytes}"
    return raw, f"{where}: the digest is not that of the manifest"


def _shard_problems(cache: Cache, shard: ShardEntry, windows: _Windows, on_tokens: OnTokens) -> Iterator[str]:
    raw, problem = _read_file(cache, shard)
    if problem is not None:
        yield problem
    if raw is None:
        return
    where = f"{cache.store.root}/{shard.name}"
    yield from _header_problems(cache, shard, raw, where)
    digests = hashlib.sha256()
    for number, entry in enumerate(shard.chunks):
        where_chunk = f"{where} chunk {number}"
        message = raw[entry.offset : entry.offset + entry.length]
        try:
            check_chunk(message, entry, where=where_chunk)
            chunk = decode_records(cache.manifest.layout, message, where=where_chunk, entry=entry)
        except ShardError as error:
            yield str(error)
            continue
        yield from (f"{where_chunk}: {p}" for p in _row_problems(cache, message, digests))
        yield from (f"{where_chunk}: {p}" for p in _record_problems(cache, chunk))
        yield from _repeated_windows(chunk, windows, where_chunk)
        on_tokens(len(chunk.tokens))
    if digests.hexdigest() != shard.rows_sha256:
        yield f"{where}: the rows' digests are not those of the manifest"


def _header_problems(cache: Cache, shard: ShardEntry, raw: bytes, where: str) -> Iterator[str]:
    try:
        reader = pa.ipc.open_file(pa.py_buffer(raw))
        metadata = read_file_metadata(reader.schema, where=where)
    except (pa.ArrowException, OSError) as error:
        yield f"{where}: not an Arrow file ({error})"
        return
    except ShardError as error:
        yield str(error)
        return
    layout = cache.manifest.layout
    if not reader.schema.equals(schema(layout)):
        yield f"{where}: the columns are not those of the manifest's layout"
    if metadata["version"] != layout.version:
        yield f"{where}: found format version {metadata['version']}, the manifest says {layout.version}"
    if metadata.get("layout") != layout.to_dict():
        yield f"{where}: the layout in the file is not that of the manifest"
    if reader.num_record_batches != len(shard.chunks):
        yield f"{where}: found {reader.num_record_batches} chunks, the manifest says {len(shard.chunks)}"


def _row_problems(cache: Cache, message: bytes, digests: hashlib._Hash) -> Iterator[str]:
    """Add the digests of the rows of a chunk to `digests`, and yield the rows that have another digest."""
    batch = read_batch(cache.manifest.layout, message)
    stated = batch.column("row_sha256").to_pylist()
    if not cache.manifest.layout.has_tokens:  # the digests are those of the rows with their tokens
        digests.update(b"".join(stated))
        return
    for r, digest in enumerate(row_digests(batch)):
        digests.update(digest)
        if digest != stated[r]:
            yield f"row {r}: the content is not what the row's digest says"


def _record_problems(cache: Cache, chunk: Chunk) -> Iterator[str]:
    layout = cache.manifest.layout
    return chunk_problems(chunk, layout.vocab_size, absent=layout.absent)


def _repeated_windows(chunk: Chunk, windows: _Windows, where: str) -> Iterator[str]:
    for info in chunk.rows:
        key = (info.document, info.window)
        if key in windows:
            yield f"{where}: window {info.window} of document {info.document[:12]} is also in {windows[key]}"
        windows[key] = where


def _side_file_problems(cache: Cache) -> Iterator[CacheProblem]:
    problem_of: dict[str, Callable[[bytes], str | None]] = {
        **{s.name + ENTRY_SUFFIX: partial(entry_problem, shard=s) for s in cache.manifest.shards},
        **PROBLEM_OF,
        MANIFEST_NAME: partial(manifest_problem, manifest=cache.manifest),
    }
    for name, find_problem in problem_of.items():
        try:
            raw = cache.store.read(name)
        except IncompleteCacheError:
            continue
        if (problem := find_problem(raw)) is not None:
            yield CacheProblem(file=name, text=f"{cache.store.root}/{name}: {problem}")
