"""What is a cache without its text, and how does it get it back?

Without its text, every list of `tokens` is empty and everything else is as it was; a row still has one token more
than it has positions. `row_sha256` stays the digest of the row with its tokens: it proves that tokens which someone
puts back are the original ones, and the digest over all rows stays the identity of the content.

Where candidate tokens come from (a corpus, a tokenizer) is the caller's business: `teacher_dump.hydrate`.

Not promised: secrecy. The likeliest ids of a position often contain the token of the text, and whoever has a
candidate text can confirm it by the digests. Leaving tokens out is about not redistributing text.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.edit.rewrite import claim, fetch_files, fetch_shard, finish, rewrite
from shards.errors import ShardError
from shards.format.batch import read_batch, row_digest, row_infos, row_lengths
from shards.format.chunk import Int32, RowInfo
from shards.format.manifest import ShardEntry
from shards.format.schema import Layout
from shards.read import Cache
from shards.reports.statistics import measure
from shards.storage.store import OnBytes, ignore_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """A row that waits for its tokens."""

    number: int
    """Place of the row in the cache."""
    info: RowInfo
    num_tokens: int
    """How many it had, prefix included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """A row whose tokens could not be put back."""

    info: RowInfo
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Hydrated:
    """What came back."""

    cache: Cache
    missing: tuple[Missing, ...]


def without_tokens(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows with empty lists of tokens."""
    field = batch.schema.field("tokens")
    starts = pa.array(np.zeros(batch.num_rows + 1, np.int32))
    empty = pa.ListArray.from_arrays(starts, pa.array([], field.type.value_type), type=field.type)
    return batch.set_column(batch.schema.get_field_index("tokens"), field, empty)


def strip(source: Path, entry: ShardEntry, layout: Layout, out: Path) -> ShardEntry:
    """Write a copy without text of a local, checked shard to folder `out`, under the same name."""
    made = rewrite(
        source,
        entry,
        without_tokens,
        layout=layout,
        out=out,
        name=entry.name,
        new_layout=replace(layout, tokens="removed"),
    )
    assert made is not None
    return made


def needs(cache: Cache) -> Iterator[Need]:
    """Yield what each row of a cache without text waits for. Raises ShardError where the cache has its text."""
    if cache.manifest.layout.tokens != "removed":
        raise ShardError(
            f"{cache.store.root}: found a cache that has its tokens, expected one published without; it can be "
            "trained on as it is"
        )
    number = 0
    for i in range(len(cache)):
        batch = read_batch(cache.manifest.layout, cache.chunk_bytes(i)[2])
        for info, length in zip(row_infos(batch), row_lengths(batch), strict=True):
            yield Need(number=number, info=info, num_tokens=length)
            number += 1


def hydrate(
    cache: Cache,
    out: Path,
    candidates: Callable[[int], Sequence[Int32] | str],
    *,
    on_bytes: OnBytes = ignore_bytes,
) -> Hydrated:
    """Write the cache with its text to folder `out`.

    `candidates(n)` returns the token lists, prefix included, that row n may have had, or why there is none. Only
    tokens with which the row has its original digest are taken; rows without such are left out and returned. Where
    none is missing and the shards come out as the very bytes that they were, so does the manifest.
    """
    manifest = cache.manifest
    layout = replace(manifest.layout, tokens="kept")
    claim(out, "hydrate", [cache.manifest_sha256])
    missing: list[Missing] = []
    number = 0

    def fill(batch: pa.RecordBatch) -> pa.RecordBatch:
        nonlocal number
        found: list[tuple[int, Int32]] = []
        for r, (info, expect) in enumerate(zip(row_infos(batch), batch.column("row_sha256").to_pylist(), strict=True)):
            offered = candidates(number)
            number += 1
            tokens = None if isinstance(offered, str) else _right(batch, r, info, expect, offered)
            if tokens is not None:
                found.append((r, tokens))
            else:
                why = offered if isinstance(offered, str) else "the document's tokens are not those of the row"
                missing.append(Missing(info=info, why=why))
        return _with_tokens(batch.take(pa.array([r for r, _ in found], pa.int64())), [t for _, t in found])

    entries: list[ShardEntry] = []
    with tempfile.TemporaryDirectory(prefix=".text.", dir=out) as scratch:
        for entry in manifest.shards:
            source = fetch_shard(cache.store, entry, Path(scratch) / entry.name, on_bytes=on_bytes)
            missed = len(missing)
            made = rewrite(source, entry, fill, layout=manifest.layout, out=out, name=entry.name, new_layout=layout)
            source.unlink()
            if made is not None:
                entries.append(made if len(missing) == missed else _renamed(out, made))
    if not entries:
        kinds = "; ".join(f"{n} rows: {why}" for why, n in Counter(m.why for m in missing).items())
        raise ShardError(f"{cache.store.root}: none of its rows could be hydrated ({kinds}); check --data")
    fetch_files(cache, out)
    whole = replace(manifest, layout=layout, shards=tuple(entries), history=manifest.history[:-1])
    if not missing and manifest.history and whole.sha256 in manifest.history[-1].get("from", ()):
        return Hydrated(cache=finish(out, whole), missing=())  # the original to the last bit: it keeps its identity
    step = {"step": "hydrate", "from": [cache.manifest_sha256], "missing_rows": len(missing)}
    draft = replace(whole, history=(*manifest.history, step))
    if missing:
        draft = replace(draft, report=measure(Cache.of(out, draft)))
    return Hydrated(cache=finish(out, draft), missing=tuple(missing))


def _right(batch: pa.RecordBatch, r: int, info: RowInfo, expect: bytes, offered: Sequence[Int32]) -> Int32 | None:
    row = batch.slice(r, 1)
    streams: dict[str, npt.NDArray[np.generic]] = {}
    for field in batch.schema:
        if pa.types.is_list(field.type):
            streams[field.name] = row.column(field.name).flatten().to_numpy()
    kind = batch.schema.field("tokens").type.value_type.to_pandas_dtype()
    for tokens in offered:
        if row_digest(info, {**streams, "tokens": tokens.astype(kind)}, batch.schema) == expect:
            return tokens
    return None


def _with_tokens(batch: pa.RecordBatch, tokens: Sequence[Int32]) -> pa.RecordBatch:
    field = batch.schema.field("tokens")
    starts = np.cumsum([0, *(len(t) for t in tokens)]).astype(np.int32)
    flat = np.concatenate([*tokens, np.empty(0, np.int32)])
    values = pa.array(flat.astype(field.type.value_type.to_pandas_dtype()), field.type.value_type)
    lists = pa.ListArray.from_arrays(pa.array(starts), values, type=field.type)
    return batch.set_column(batch.schema.get_field_index("tokens"), field, lists)


def _renamed(out: Path, entry: ShardEntry) -> ShardEntry:
    """Give a shard that lost rows a name of its own."""
    number = entry.name.removesuffix(".arrow").split("-")[0]
    name = f"{number}-{entry.rows_sha256[:12]}.arrow"
    (out / entry.name).rename(out / name)
    return replace(entry, name=name)
