"""Tests of reading a cache while it is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import shards
from shards.commit import entry_path
from shards.errors import CorruptShardError
from shards.live import DRAFT_NAME, open_live


@pytest.fixture(params=["cache_folder", "response_folder"])
def folder(request: pytest.FixtureRequest) -> Path:
    """Return the folder of a cache of each format version."""
    path: Path = request.getfixturevalue(request.param)
    return path


def test_complete_shards_are_a_cache_before_the_manifest(folder: Path) -> None:
    whole = shards.open(folder)
    manifest_path = folder / "manifest.json"
    manifest = manifest_path.read_bytes()
    manifest_path.unlink()
    assert open_live(folder) is None
    (folder / DRAFT_NAME).write_bytes(replace(whole.manifest, shards=()).to_bytes())
    entry = entry_path(folder / "000001.arrow").read_bytes()
    entry_path(folder / "000001.arrow").unlink()
    live = open_live(folder)
    assert live is not None
    assert (live.complete, live.cache.manifest.shards) == (False, whole.manifest.shards[:1])
    assert [chunk.tokens.tolist() for chunk in live.cache] == [whole[i].tokens.tolist() for i in range(len(live.cache))]
    entry_path(folder / "000001.arrow").write_bytes(entry)
    live = open_live(folder)
    assert live is not None
    assert (live.complete, live.cache.manifest.shards) == (False, whole.manifest.shards)
    manifest_path.write_bytes(manifest)
    live = open_live(folder)
    assert live is not None
    assert (live.complete, live.cache.manifest_sha256) == (True, whole.manifest_sha256)


def test_a_damaged_entry_is_named(cache_folder: Path) -> None:
    whole = shards.open(cache_folder)
    (cache_folder / "manifest.json").unlink()
    (cache_folder / DRAFT_NAME).write_bytes(replace(whole.manifest, shards=()).to_bytes())
    entry_path(cache_folder / "000001.arrow").write_text("{}")
    with pytest.raises(CorruptShardError, match=r"000001\.arrow\.json: not a shard's entry"):
        open_live(cache_folder)
