"""Combine caches of several teachers into one cache of the mixture of their distributions.

Only rows that all caches have, with the same tokens, are in the result. `shards.format.mixed_records` has the method,
docs/format.md what is exact, estimated or bounded in it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shards.edit.merge import joined_facts
from shards.edit.rewrite import claim_output, fetch_files, finish
from shards.errors import ShardError
from shards.format.chunk import Chunk
from shards.format.manifest import Manifest, ShardEntry, Teacher
from shards.format.mixed_records import mix_rows
from shards.format.schema import ABSENT_COLUMNS, Layout
from shards.read import Cache
from shards.reports.statistics import measure
from shards.reports.summary import absent_line
from shards.storage.transfer import OnBytes, ignore_bytes
from shards.write import ShardWriter

_CHUNK_TOKENS = 32768
"""A chunk ends with the row that reaches this number of tokens."""
_KEPT_CHUNKS = 4
"""Decoded chunks of a cache that are kept."""
_NEEDED = ("draws", "tail")
"""Parts of the records without which a mixture is not unbiased."""

_RowKey = tuple[str, int, int, str]
"""Document, window, context, and digest of the tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CombineResult:
    """The result of combining caches."""

    cache: Cache
    left_out: tuple[int, ...]
    """Rows of each cache that not all caches have."""


def combine(
    caches: Sequence[Cache], weights: Sequence[float], out: Path, *, on_bytes: OnBytes = ignore_bytes
) -> CombineResult:
    """Write the mixture of several teachers' records.

    Args:
        caches: At least two caches of one tokenizer and one rounding.
        weights: Weight of each; divided by their sum.
        out: Directory of the result.
        on_bytes: Progress callback, which gets the bytes of the first cache's shards.

    Raises:
        ShardError: The weights or the caches do not fit together. The message names the difference.
        StoreError: A shard cannot be read or written.
    """
    shares = _shares(caches, weights)
    for other in caches[1:]:
        _require_same_rows(caches[0], other)
    digests = [cache.manifest_sha256 for cache in caches]
    if len(set(digests)) < len(digests):
        raise ShardError(f"combine: found manifest {digests[0][:12]} twice, expected caches of different teachers")
    layout = _mixed_layout(caches)
    claim_output(out, "combine", [*digests, repr(shares)])
    others = [_RowIndex(cache) for cache in caches[1:]]
    seed = "/".join(digests)
    shards: list[ShardEntry] = []
    for number, shard in enumerate(caches[0].manifest.shards):
        entry = _write_shard(out, number, _shared_rows(caches[0], number, others), shares, layout, seed)
        if entry is not None:
            shards.append(entry)
        on_bytes(shard.bytes)
    fetch_files(caches[0], out)
    rows = sum(entry.rows for entry in shards)
    left_out = tuple(cache.rows - rows for cache in caches)
    manifest = replace(_mixed_manifest([c.manifest for c in caches], shares, layout, left_out), shards=tuple(shards))
    if not shards:
        raise ShardError(
            f"combine: found no row of {caches[0].store.root} in all other caches, expected rows of the same tokens; "
            f"dump the teachers on one corpus, with one window size; {out} holds no cache, delete it"
        )
    manifest = replace(manifest, report=measure(Cache.of(out, manifest)))
    return CombineResult(cache=finish(out, manifest), left_out=left_out)


class _RowIndex:
    """Rows of a cache by their text."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._places: dict[_RowKey, tuple[int, int]] = {}
        self._chunks: OrderedDict[int, Chunk] = OrderedDict()
        for i in range(len(cache)):
            chunk = cache[i]
            self._places |= {_key(chunk.row(r)): (i, r) for r in range(len(chunk.rows))}

    def get(self, key: _RowKey) -> Chunk | None:
        """Return a row as a chunk of one row; None for one that the cache does not have."""
        if key not in self._places:
            return None
        number, row = self._places[key]
        if number not in self._chunks:
            self._chunks[number] = self._cache[number]
            while len(self._chunks) > _KEPT_CHUNKS:
                self._chunks.popitem(last=False)
        self._chunks.move_to_end(number)
        return self._chunks[number].row(row)


def _key(row: Chunk) -> _RowKey:
    info = row.rows[0]
    return info.document, info.window, info.context, hashlib.sha256(row.tokens.astype("<i4").tobytes()).hexdigest()


def _shared_rows(first: Cache, shard: int, others: Sequence[_RowIndex]) -> Iterator[list[Chunk]]:
    """Yield the rows of a shard of the first cache that all caches have, as each has it."""
    begin = sum(len(each.chunks) for each in first.manifest.shards[:shard])
    for i in range(begin, begin + len(first.manifest.shards[shard].chunks)):
        chunk = first[i]
        for r in range(len(chunk.rows)):
            row = chunk.row(r)
            found = [index.get(_key(row)) for index in others]
            known = [other for other in found if other is not None]
            if len(known) == len(others):
                yield [row, *known]


def _write_shard(
    out: Path, number: int, rows: Iterator[list[Chunk]], shares: Sequence[float], layout: Layout, seed: str
) -> ShardEntry | None:
    """Write the mixed rows of a shard; return its entry, None without rows."""
    row = next(rows, None)
    if row is None:
        return None
    name, task = f"{number:06d}.arrow", f"{number:06d}"
    with ShardWriter(
        out, name, layout=layout, task=task, fingerprint=seed.replace("/", "-"), chunk_tokens=_CHUNK_TOKENS
    ) as writer:
        while row is not None:
            writer.write(mix_rows(row, shares, layout, seed=seed))
            row = next(rows, None)
        return writer.close()


def _shares(caches: Sequence[Cache], weights: Sequence[float]) -> tuple[float, ...]:
    if len(caches) < 2 or len(weights) != len(caches):
        raise ShardError(
            f"combine: found {len(caches)} caches and {len(weights)} weights, expected two caches or more and a weight "
            "for each"
        )
    if not all(0 < weight < float("inf") for weight in weights):
        raise ShardError(f"weights: found {', '.join(f'{w:g}' for w in weights)}, expected numbers above 0")
    return tuple(weight / sum(weights) for weight in weights)


def _require_same_rows(a: Cache, b: Cache) -> None:
    """Raise ShardError if rows of two caches cannot be the same text, coded alike."""
    facts_a, facts_b = _compared_facts(a.manifest), _compared_facts(b.manifest)
    if differences := [name for name, fact in facts_a.items() if facts_b[name] != fact]:
        name = differences[0]
        raise ShardError(
            f"{b.store.root}: found {', '.join(differences)} other than in {a.store.root} ({name}: "
            f"{str(facts_b[name])[:16]}, expected {str(facts_a[name])[:16]}); only caches of one tokenizer and one "
            "rounding can be combined; train on both with student-train --shards A=W --shards B=W"
        )
    for cache in (a, b):
        if missing := [part for part in _NEEDED if part in cache.manifest.layout.absent]:
            raise ShardError(
                f"{cache.store.root}: found no {absent_line(missing)}, expected whole records; a mixture of the ids "
                "that were stored alone would be biased"
            )


def _compared_facts(manifest: Manifest) -> dict[str, Any]:
    layout = manifest.layout
    names = ("vocab_size", "threshold", "tail_floor", "log_z_step", "realised_step", "entropy_max", "tokens")
    return {
        "the format version": layout.version,
        "the tokenizer": manifest.tokenizer.fingerprint,
        "the prefix tokens": list(manifest.tokenizer.prefix_tokens),
        **{f"the layout's {name}": getattr(layout, name) for name in names},
    }


def _mixed_layout(caches: Sequence[Cache]) -> Layout:
    """Return the layout of the mixture: without log Z and relations, and without parts that a cache lacks."""
    absent = {part for cache in caches for part in cache.manifest.layout.absent}
    return replace(
        caches[0].manifest.layout,
        temperatures=(),
        relations=None,
        absent=tuple(part for part in ABSENT_COLUMNS if part in absent),
    )


def _mixed_manifest(
    manifests: Sequence[Manifest], shares: Sequence[float], layout: Layout, left_out: Sequence[int]
) -> Manifest:
    first, teachers = manifests[0], [manifest.teacher for manifest in manifests]
    step = {
        "step": "combine",
        "from": [manifest.sha256 for manifest in manifests],
        "weights": list(shares),
        "left_out_rows": list(left_out),
        "entropy": "lower bound",
    }
    windows = [manifest.settings.get("window_tokens") for manifest in manifests]
    known = [tokens for tokens in windows if isinstance(tokens, int)]
    settings = joined_facts([manifest.settings for manifest in manifests])
    if known:
        settings["window_tokens"] = min(known)  # a row is in all caches
    return replace(
        first,
        layout=layout,
        teacher=Teacher(
            name=" + ".join(f"{share:g} {teacher.name}" for share, teacher in zip(shares, teachers, strict=True)),
            repo="",
            revision="",
            weights_sha256="",
            licence=" + ".join(dict.fromkeys(teacher.licence for teacher in teachers if teacher.licence)),
            restricts_outputs=any(teacher.restricts_outputs for teacher in teachers),
            vocab_size=first.teacher.vocab_size,
            parameters=sum(teacher.parameters for teacher in teachers),
        ),
        engine=joined_facts([manifest.engine for manifest in manifests]),
        settings=settings,
        code=joined_facts([manifest.code for manifest in manifests]),
        shards=(),
        report={},
        tombstones=tuple({t.document: t for manifest in manifests for t in manifest.tombstones}.values()),
        history=(*(h for manifest in manifests for h in manifest.history), step),
    )
