"""Caches of given rows, for the tests of edits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import shards
from shards.format.batch import Row
from shards.format.manifest import ShardEntry
from shards.format.schema import Layout
from shards.read import Cache
from shards.storage.atomic import write_atomic
from shards.write import ShardWriter
from tests.shards.conftest import LAYOUT, make_manifest, make_row


def write_cache(folder: Path, shards_of_rows: list[list[Row]], *, layout: Layout = LAYOUT, **changes: Any) -> Cache:
    """Write a cache of given rows; `changes` are of its manifest."""
    entries: list[ShardEntry] = []
    for number, rows in enumerate(shards_of_rows):
        writer = ShardWriter(
            folder, f"{number:06d}.arrow", layout=layout, task=str(number), fingerprint="f", chunk_tokens=80
        )
        with writer:
            for row in rows:
                writer.write(row)
            entries.append(writer.close())
    write_atomic(folder / "manifest.json", replace(make_manifest(tuple(entries), layout=layout), **changes).to_bytes())
    return shards.open(folder)


def some_rows(count: int, *, seed: int, path: str = "folder/file.py", source: str = "a/repository") -> list[Row]:
    """Return random rows of one document's path and source."""
    rng = np.random.default_rng(seed)
    rows = [make_row(rng, tokens=int(rng.integers(8, 50))) for _ in range(count)]
    return [replace(r, info=replace(r.info, path=path, source=source)) for r in rows]


def rows_of(cache: Cache) -> list[tuple[object, ...]]:
    """Return every row's origin and content, in order."""
    return [
        (row.rows[0], row.tokens.tolist(), row.head_ids.tolist(), row.head_probs.tolist(), row.label_logp.tolist())
        for chunk in cache
        for row in (chunk.row(r) for r in range(len(chunk.rows)))
    ]
