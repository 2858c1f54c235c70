"""Tests of naming finished shards, and of recovering their entries after a kill."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from shards.commit import entry_path, read_entry, recover_entry
from shards.format.manifest import ShardEntry
from shards.format.schema import file_schema
from shards.write import ShardWriter
from tests.shards.conftest import LAYOUT, make_row

SCHEMA = file_schema(LAYOUT, task="a", fingerprint="f")


def write(folder: Path, *, seed: int = 0, rows: int = 5, fingerprint: str = "f") -> ShardEntry:
    """Write the shard a.arrow of rows that depend on the seed."""
    chances = np.random.default_rng(seed)
    with ShardWriter(folder, "a.arrow", layout=LAYOUT, task="a", fingerprint=fingerprint, chunk_tokens=60) as writer:
        for _ in range(rows):
            writer.write(make_row(chances, tokens=30))
        return writer.close()


def test_a_lost_entry_is_made_again_from_the_shard_to_the_last_bit(tmp_path: Path) -> None:
    entry = write(tmp_path)
    assert len(entry.chunks) == 3
    before = entry_path(tmp_path / "a.arrow").read_bytes()
    entry_path(tmp_path / "a.arrow").unlink()
    assert recover_entry(tmp_path / "a.arrow", SCHEMA) == entry
    assert entry_path(tmp_path / "a.arrow").read_bytes() == before


def test_the_first_of_two_workers_wins_and_the_other_takes_its_entry(tmp_path: Path) -> None:
    first = write(tmp_path, seed=1)
    content = (tmp_path / "a.arrow").read_bytes()
    assert write(tmp_path, seed=2) == first
    entry_path(tmp_path / "a.arrow").unlink()  # killed between the two
    assert write(tmp_path, seed=3) == first
    assert (tmp_path / "a.arrow").read_bytes() == content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.arrow", "a.arrow.json"]


@pytest.mark.parametrize("keep_entry", [True, False])
@pytest.mark.parametrize("damage", [lambda raw: raw[:-500], lambda raw: b"", lambda raw: b"no Arrow" * 100])
def test_a_damaged_shard_is_replaced(tmp_path: Path, damage: object, keep_entry: bool) -> None:
    write(tmp_path, seed=1)
    shard = tmp_path / "a.arrow"
    shard.write_bytes(damage(shard.read_bytes()))  # type: ignore[operator]
    if not keep_entry:
        entry_path(shard).unlink()
    assert recover_entry(shard, SCHEMA) is None
    second = write(tmp_path, seed=2)
    assert read_entry(shard) == second
    entry_path(shard).unlink()
    assert recover_entry(shard, SCHEMA) == second


def test_no_flipped_bit_gets_an_entry_of_its_own(tmp_path: Path) -> None:
    entry = write(tmp_path, rows=2)
    shard = tmp_path / "a.arrow"
    raw = bytearray(shard.read_bytes())
    entry_path(shard).unlink()
    chances = np.random.default_rng(0)
    for place in chances.integers(entry.chunks[0].offset, len(raw), 150):
        raw[place] ^= 16
        shard.write_bytes(raw)
        found = recover_entry(shard, SCHEMA)
        # A flip in padding or in the footer changes no row.
        assert found is None or found.rows_sha256 == entry.rows_sha256
        entry_path(shard).unlink(missing_ok=True)
        raw[place] ^= 16


def test_a_shard_of_other_inputs_is_no_result_of_this_task(tmp_path: Path) -> None:
    write(tmp_path, fingerprint="other")
    entry_path(tmp_path / "a.arrow").unlink()
    assert recover_entry(tmp_path / "a.arrow", SCHEMA) is None


def test_an_entry_whose_shard_was_deleted_does_not_pass_for_the_next_one(tmp_path: Path) -> None:
    write(tmp_path, seed=1)
    (tmp_path / "a.arrow").unlink()
    assert read_entry(tmp_path / "a.arrow") is None
    second = write(tmp_path, seed=2)
    assert read_entry(tmp_path / "a.arrow") == second


def test_without_hard_links_a_shard_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    assert write(tmp_path) == read_entry(tmp_path / "a.arrow")


def test_a_shard_without_its_entry_does_not_count(cache_folder: Path) -> None:
    shard = cache_folder / "000000.arrow"
    assert read_entry(shard) is not None
    entry_path(shard).write_text("{")
    assert read_entry(shard) is None
    entry_path(shard).unlink()
    assert read_entry(shard) is None
