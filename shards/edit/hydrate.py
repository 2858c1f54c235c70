"""Remove the tokens of a cache, and put them back.

Without its tokens, a cache has empty lists of `tokens`, and everything else is unchanged. `row_sha256` stays the
digest of the row with its tokens. It proves that tokens which someone puts back are the original ones, and the digest
over all rows stays the identity of the content.

A cache of responses has no text at all then: neither tokens nor messages. Nothing puts them back, because no corpus
holds what a model wrote.

The caller provides candidates for the tokens, from a corpus and a tokenizer: `teacher_dump.hydrate`.

Not guaranteed: secrecy. The likeliest ids of a position often contain the label, and anyone with a candidate text can
confirm it by the digests. Tokens are left out to avoid redistributing text.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.edit.rewrite import claim_output, content_name, fetch_files, fetch_shard, finish, rewrite
from shards.errors import ShardError
from shards.format.batch import list_array, read_batch, row_digest, row_infos, row_lengths, streams_of
from shards.format.chunk import Int32, Int64, RowInfo
from shards.format.manifest import Manifest, ShardEntry
from shards.format.schema import Layout
from shards.read import Cache
from shards.reports.statistics import measure
from shards.storage.transfer import OnBytes, ignore_bytes

Candidates = Callable[[int], Sequence[Int32] | str]
"""Function from the index of a row to the token lists, prefix included, that it may have had, or why there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowWithoutTokens:
    """A row whose tokens are to be found."""

    number: int
    """Index of the row in the cache."""
    info: RowInfo
    num_tokens: int
    """Number of its tokens, prefix included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingRow:
    """A row whose tokens were not found."""

    info: RowInfo
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HydratedCache:
    """The result of putting tokens back."""

    cache: Cache
    missing: tuple[MissingRow, ...]


def remove_tokens(source: Path, shard: ShardEntry, layout: Layout, out: Path) -> ShardEntry:
    """Write a copy of a shard without its tokens and messages, under the same name.

    Args:
        source: Local copy of the shard, with the right digest.
        shard: Its entry.
        layout: Its layout.
        out: Directory of the copy.

    Returns:
        The entry of the copy.
    """
    removed = replace(layout, tokens="removed")
    entry = rewrite(source, shard, _without_text, layout=layout, out=out, name=shard.name, new_layout=removed)
    assert entry is not None
    return entry


def rows_without_tokens(cache: Cache) -> Iterator[RowWithoutTokens]:
    """Yield the rows of a cache without tokens, in order.

    Raises:
        ShardError: If the cache has its tokens, or its rows are responses.
    """
    _require_documents(cache)
    if cache.manifest.layout.has_tokens:
        raise ShardError(
            f"{cache.store.root}: found a cache that has its tokens, expected one published without; it can be "
            "trained on as it is"
        )
    number = 0
    for i in range(len(cache)):
        batch = read_batch(cache.manifest.layout, cache.chunk_bytes(i)[2])
        for info, length in zip(row_infos(batch), row_lengths(batch), strict=True):
            yield RowWithoutTokens(number=number, info=info, num_tokens=length)
            number += 1


def hydrate(cache: Cache, out: Path, candidates: Candidates, *, on_bytes: OnBytes = ignore_bytes) -> HydratedCache:
    """Write a cache with its tokens.

    Only tokens that give a row its original digest are taken. Other rows are left out and returned. If none is
    missing and the shards are the original bytes, the manifest is the original one, too.

    Args:
        cache: Cache without tokens.
        out: Directory of the result.
        candidates: Tokens to try for each row.
        on_bytes: Progress callback, which gets the bytes of the shards.

    Raises:
        ShardError: If no row has the right candidate, or the rows are responses.
        StoreError: If a shard cannot be read or written.
    """
    _require_documents(cache)
    layout = replace(cache.manifest.layout, tokens="kept")
    claim_output(out, "hydrate", [cache.manifest_sha256])
    filler = _Filler(candidates)
    shards: list[ShardEntry] = []
    with tempfile.TemporaryDirectory(prefix=".text.", dir=out) as scratch:
        for shard in cache.manifest.shards:
            source = fetch_shard(cache.store, shard, Path(scratch) / shard.name, on_bytes=on_bytes)
            missing_before = len(filler.missing)
            entry = rewrite(
                source,
                shard,
                filler.fill,
                layout=cache.manifest.layout,
                out=out,
                name=shard.name,
                new_layout=layout,
            )
            source.unlink()
            if entry is not None:
                shards.append(entry if len(filler.missing) == missing_before else _renamed(out, entry))
    if not shards:
        reasons = "; ".join(f"{n} rows: {why}" for why, n in Counter(m.why for m in filler.missing).items())
        raise ShardError(f"{cache.store.root}: none of its rows could be hydrated ({reasons}); check --data")
    fetch_files(cache, out)
    manifest = _hydrated_manifest(cache, replace(cache.manifest, layout=layout, shards=tuple(shards)), filler, out)
    return HydratedCache(cache=finish(out, manifest), missing=tuple(filler.missing))


def _require_documents(cache: Cache) -> None:
    if cache.manifest.layout.has_responses:
        raise ShardError(
            f"{cache.store.root}: found a cache of responses, expected one of documents: what a model wrote is in no "
            "corpus, so its text cannot be put back; use the cache that this one was published from"
        )


@dataclass(slots=True)
class _Filler:
    """Puts tokens into successive batches, and counts the rows."""

    candidates: Candidates
    missing: list[MissingRow] = field(default_factory=list)
    num_rows: int = 0

    def fill(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows of a batch whose tokens were found, with their tokens."""
        rows: list[int] = []
        tokens: list[Int32] = []
        for r, (info, digest) in enumerate(zip(row_infos(batch), batch.column("row_sha256").to_pylist(), strict=True)):
            offered = self.candidates(self.num_rows)
            self.num_rows += 1
            original = None if isinstance(offered, str) else _original_tokens(batch, r, info, digest, offered)
            if original is not None:
                rows.append(r)
                tokens.append(original)
            else:
                why = offered if isinstance(offered, str) else "the document's tokens are not those of the row"
                self.missing.append(MissingRow(info=info, why=why))
        starts = np.cumsum([0, *(len(t) for t in tokens)])
        flat = np.concatenate([*tokens, np.empty(0, np.int32)])
        return _with_tokens(batch.take(pa.array(rows, pa.int64())), flat, starts)


def _hydrated_manifest(cache: Cache, manifest: Manifest, filler: _Filler, out: Path) -> Manifest:
    history = cache.manifest.history
    original = replace(manifest, history=history[:-1])
    if not filler.missing and history and original.sha256 in history[-1].get("from", ()):
        return original  # bit for bit, so it keeps its identity
    step = {"step": "hydrate", "from": [cache.manifest_sha256], "missing_rows": len(filler.missing)}
    draft = replace(manifest, history=(*history, step))
    return replace(draft, report=measure(Cache.of(out, draft))) if filler.missing else draft


def _original_tokens(
    batch: pa.RecordBatch, r: int, info: RowInfo, digest: bytes, offered: Sequence[Int32]
) -> Int32 | None:
    """Return the offered tokens that give row r its digest, None if there are none."""
    streams = streams_of(batch.slice(r, 1))
    dtype = batch.schema.field("tokens").type.value_type.to_pandas_dtype()
    for tokens in offered:
        if row_digest(info, {**streams, "tokens": tokens.astype(dtype)}, batch.schema) == digest:
            return tokens
    return None


def _with_tokens(batch: pa.RecordBatch, tokens: Int32, starts: Int64) -> pa.RecordBatch:
    field = batch.schema.field("tokens")
    values = tokens.astype(field.type.value_type.to_pandas_dtype())
    return batch.set_column(batch.schema.get_field_index("tokens"), field, list_array(field, values, starts))


def _without_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    batch = _with_tokens(batch, np.empty(0, np.int32), np.zeros(batch.num_rows + 1, np.int64))
    column = batch.schema.get_field_index("messages")
    if column < 0:
        return batch
    return batch.set_column(column, batch.schema.field(column), pa.array([""] * batch.num_rows, pa.string()))


def _renamed(out: Path, entry: ShardEntry) -> ShardEntry:
    """Give a shard that lost rows a name of its own."""
    name = content_name(entry.name, entry.rows_sha256)
    (out / entry.name).rename(out / name)
    return replace(entry, name=name)
