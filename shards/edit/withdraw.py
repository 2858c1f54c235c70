"""How do caches change? Documents are withdrawn from one, or several become one; the originals stay as they are.

Withdrawing leaves tombstones in the manifest, so that what was taken out stays known and is not merged in again.
Merging keeps every row once: a row that is there twice with the same digest is dropped the second time; the same
window of a document with other content is refused, because a student would see that text twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.edit.rewrite import claim, columns, fetch_files, fetch_shard, finish, rewrite
from shards.errors import ShardError
from shards.format.manifest import Manifest, ShardEntry, Tombstone
from shards.read import Cache
from shards.reports.statistics import measure
from shards.storage.store import OnBytes, ignore_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Withdrawn:
    """What a withdrawal did."""

    cache: Cache
    tombstones: tuple[Tombstone, ...]
    """The new ones."""
    unmatched: tuple[str, ...]
    """Lines that name nothing in the cache."""
    rewritten: int
    """Shards that lost rows; the others are the same bytes."""


def read_list(path: Path) -> tuple[str, ...]:
    """Return the names in a list: sha256s of documents, sources, or source/path; blank lines and # do not count."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ShardError(f"--list {path}: {error}; expected a text file with one name a line") from None
    names = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not names:
        raise ShardError(f"--list {path}: found no names, expected one a line: a sha256, a source or source/path")
    return names


def withdraw(cache: Cache, names: Sequence[str], out: Path, *, on_bytes: OnBytes = ignore_bytes) -> Withdrawn:
    """Write to folder `out` the cache without the documents that `names` name.

    Raises ShardError where the names name nothing, or everything.
    """
    manifest = cache.manifest
    # By digest: the folder may be published, and the names are those of people who wanted to be left out.
    claim(out, "withdraw", [cache.manifest_sha256, hashlib.sha256("\n".join(names).encode()).hexdigest()])
    place = {name: i for i, name in enumerate(names)}
    found: dict[str, tuple[int, int, int]] = {}
    matched: set[int] = set()
    entries: list[ShardEntry] = []
    rewritten = 0
    for entry in manifest.shards:
        source = fetch_shard(cache.store, entry, out / entry.name, on_bytes=on_bytes)
        table = columns(source, ("document", "source", "path", "tail_codes"))
        keep = np.ones(table.num_rows, bool)
        lengths = pc.list_value_length(table["tail_codes"]).to_pylist()
        origins = zip(*(table[n].to_pylist() for n in ("document", "source", "path")), strict=True)
        for r, (digest, origin, path) in enumerate(origins):
            document = digest.hex()
            hits = [place[n] for n in (document, origin, f"{origin}/{path}") if n in place]
            if hits:
                keep[r] = False
                matched.update(hits)
                first, rows, tokens = found.get(document, (min(hits), 0, 0))
                found[document] = (min(first, *hits), rows + 1, tokens + lengths[r] + 1)
        if keep.all():
            entries.append(entry)
            continue
        rewritten += 1
        made = rewrite(source, entry, _keep(keep), layout=manifest.layout, out=out)
        source.unlink()
        if made is not None:
            entries.append(made)
    if not found:
        raise ShardError(
            f"{cache.store.root}: none of the {len(names)} names of the list is a document, source or source/path "
            f"of this cache; {out} holds no cache, delete it"
        )
    fetch_files(cache, out)
    # Order of the list; documents of one source in the cache's order, which is that of the dictionary.
    ordered = sorted(found.items(), key=lambda item: item[1][0])
    stones = tuple(Tombstone(document=d, rows=rows, tokens=tokens) for d, (_, rows, tokens) in ordered)
    step = {
        "step": "withdraw",
        "from": [cache.manifest_sha256],
        "documents": len(stones),
        "rows": sum(t.rows for t in stones),
    }
    draft = replace(
        manifest,
        shards=tuple(entries),
        tombstones=(*manifest.tombstones, *stones),
        history=(*manifest.history, step),
    )
    return Withdrawn(
        cache=_finish(out, draft),
        tombstones=stones,
        unmatched=tuple(n for n in names if place[n] not in matched),
        rewritten=rewritten,
    )


def _keep(keep: npt.NDArray[np.bool_]) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Return a function that keeps of successive batches the rows marked in `keep`."""
    begin = 0

    def change(batch: pa.RecordBatch) -> pa.RecordBatch:
        nonlocal begin
        part = keep[begin : begin + batch.num_rows]
        begin += batch.num_rows
        return batch if part.all() else batch.filter(pa.array(part))

    return change


def _finish(out: Path, draft: Manifest) -> Cache:
    if draft.report and draft.shards:
        draft = replace(draft, report=measure(Cache.of(out, draft)))
    return finish(out, draft)
