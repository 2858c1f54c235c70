"""Tests of rewriting shards without decoding their records."""

from __future__ import annotations

from pathlib import Path

from shards.edit.withdraw import withdraw
from tests.shards.edit.conftest import some_rows, write_cache


def test_rows_keep_their_codes_when_they_are_rewritten(tmp_path: Path) -> None:
    """The digest of every row that stays is the one that its writer gave it."""
    rows = some_rows(9, seed=4)
    cache = write_cache(tmp_path / "c", [rows])
    left = withdraw(cache, (rows[3].info.document,), tmp_path / "w").cache
    whole = write_cache(tmp_path / "d", [rows[:3] + rows[4:]])
    assert left.manifest.rows_sha256 == whole.manifest.rows_sha256
    assert left.manifest_sha256 != whole.manifest_sha256
