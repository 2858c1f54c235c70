"""Withdraw documents from a cache.

The result is a new cache; the original does not change. A tombstone for each document stays in the manifest, so that
merging does not bring it back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from shards.edit.rewrite import (
    claim_output,
    fetch_files,
    fetch_shard,
    keep_rows,
    measure_and_finish,
    read_columns,
    rewrite,
)
from shards.errors import ShardError
from shards.format.manifest import ShardEntry, Tombstone
from shards.format.schema import Layout
from shards.read import Cache
from shards.storage.transfer import OnBytes, ignore_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Withdrawal:
    """The result of a withdrawal."""

    cache: Cache
    tombstones: tuple[Tombstone, ...]
    """The new tombstones."""
    unmatched: tuple[str, ...]
    """Names that match no document."""
    rewritten: int
    """Number of shards that lost rows. The others are the same bytes."""


def read_list(path: Path) -> tuple[str, ...]:
    """Return the names in a list of documents. Blank lines and lines that begin with # are ignored.

    Args:
        path: Text file with a document's sha256, a source, or source/path in each line.

    Raises:
        ShardError: If the file cannot be read or holds no names.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ShardError(f"--list {path}: {error}; expected a text file with one name a line") from None
    names = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not names:
        raise ShardError(f"--list {path}: found no names, expected one a line: a sha256, a source or source/path")
    return names


def withdraw(cache: Cache, names: Sequence[str], out: Path, *, on_bytes: OnBytes = ignore_bytes) -> Withdrawal:
    """Write a cache without some documents.

    Args:
        cache: The cache.
        names: sha256s of documents, sources, or source/path.
        out: Directory of the result.
        on_bytes: Progress callback, which gets the bytes of the shards.

    Raises:
        ShardError: If the names match nothing or everything.
        StoreError: If a shard cannot be read or written.
    """
    manifest = cache.manifest
    # Digests, because the directory may be published, and the names are of people who asked to be left out.
    claim_output(out, "withdraw", [cache.manifest_sha256, hashlib.sha256("\n".join(names).encode()).hexdigest()])
    matches = _Matches({name: i for i, name in enumerate(names)})
    shards: list[ShardEntry] = []
    rewritten = 0
    for shard in manifest.shards:
        source = fetch_shard(cache.store, shard, out / shard.name, on_bytes=on_bytes)
        keep = matches.rows_to_keep(source, manifest.layout)
        if keep.all():
            shards.append(shard)
            continue
        rewritten += 1
        entry = rewrite(source, shard, keep_rows(keep), layout=manifest.layout, out=out)
        source.unlink()
        if entry is not None:
            shards.append(entry)
    tombstones = matches.tombstones()
    if not tombstones:
        raise ShardError(
            f"{cache.store.root}: none of the {len(names)} names of the list is a document, source or source/path "
            f"of this cache; {out} holds no cache, delete it"
        )
    fetch_files(cache, out)
    step = {
        "step": "withdraw",
        "from": [cache.manifest_sha256],
        "documents": len(tombstones),
        "rows": sum(t.rows for t in tombstones),
    }
    draft = replace(
        manifest,
        shards=tuple(shards),
        tombstones=(*manifest.tombstones, *tombstones),
        history=(*manifest.history, step),
    )
    return Withdrawal(
        cache=measure_and_finish(out, draft),
        tombstones=tombstones,
        unmatched=tuple(name for i, name in enumerate(names) if i not in matches.used),
        rewritten=rewritten,
    )


@dataclass(slots=True)
class _MatchedDocument:
    first_name: int
    """Smallest index of a name that matches it."""
    rows: int = 0
    tokens: int = 0


@dataclass(slots=True)
class _Matches:
    """The documents that some names match, collected shard by shard."""

    index_of: dict[str, int]
    """Index of each name."""
    used: set[int] = field(default_factory=set)
    """Indices of the names that match a document."""
    documents: dict[str, _MatchedDocument] = field(default_factory=dict)
    """Matched documents by sha256, in the order of the cache."""

    def rows_to_keep(self, shard: Path, layout: Layout) -> npt.NDArray[np.bool_]:
        """Return whether each row of a local shard matches no name, and collect the documents of the others."""
        extra = ("context",) if layout.has_responses else ()
        table = read_columns(shard, ("document", "source", "path", "tail_codes", *extra))
        keep = np.ones(table.num_rows, bool)
        contexts = table["context"].to_pylist() if layout.has_responses else [1] * table.num_rows
        positions = pc.list_value_length(table["tail_codes"]).to_pylist()
        origins = zip(*(table[n].to_pylist() for n in ("document", "source", "path")), strict=True)
        for r, (digest, source, path) in enumerate(origins):
            sha256 = digest.hex()
            hits = [self.index_of[n] for n in (sha256, source, f"{source}/{path}") if n in self.index_of]
            if hits:
                keep[r] = False
                self.used.update(hits)
                document = self.documents.setdefault(sha256, _MatchedDocument(min(hits)))
                document.first_name = min(document.first_name, *hits)
                document.rows += 1
                document.tokens += contexts[r] + positions[r]
        return keep

    def tombstones(self) -> tuple[Tombstone, ...]:
        """Return a tombstone for each document, in the order of the names, then of the cache."""
        ordered = sorted(self.documents.items(), key=lambda item: item[1].first_name)
        return tuple(Tombstone(document=sha256, rows=d.rows, tokens=d.tokens) for sha256, d in ordered)
