"""Tests of rewriting shards without decoding their records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import shards
from shards.edit.withdraw import withdraw
from shards.format.batch import Row
from shards.format.manifest import ShardEntry
from shards.read import Cache
from shards.storage.atomic import write_atomic
from shards.write import ShardWriter
from tests.shards.conftest import LAYOUT, make_manifest, make_row


def write_cache(folder: Path, shards_of_rows: list[list[Row]], **changes: Any) -> Cache:
    """Write a cache of given rows."""
    entries: list[ShardEntry] = []
    for number, rows in enumerate(shards_of_rows):
        writer = ShardWriter(
            folder, f"{number:06d}.arrow", layout=LAYOUT, task=str(number), fingerprint="f", chunk_tokens=80
        )
        with writer:
            for row in rows:
                writer.write(row)
            entries.append(writer.close())
    write_atomic(folder / "manifest.json", replace(make_manifest(tuple(entries)), **changes).to_bytes())
    return shards.open(folder)


def some_rows(count: int, *, seed: int, path: str = "folder/file.py", source: str = "a/repository") -> list[Row]:
    rng = np.random.default_rng(seed)
    rows = [make_row(rng, tokens=int(rng.integers(8, 50))) for _ in range(count)]
    return [replace(r, info=replace(r.info, path=path, source=source)) for r in rows]


def test_rows_keep_their_codes_when_they_are_rewritten(tmp_path: Path) -> None:
    """The digest of every row that stays is the one that its writer gave it."""
    rows = some_rows(9, seed=4)
    cache = write_cache(tmp_path / "c", [rows])
    left = withdraw(cache, (rows[3].info.document,), tmp_path / "w").cache
    whole = write_cache(tmp_path / "d", [rows[:3] + rows[4:]])
    assert left.manifest.rows_sha256 == whole.manifest.rows_sha256
    assert left.manifest_sha256 != whole.manifest_sha256
