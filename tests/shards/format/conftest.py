"""A cache with every kind of file that a command writes into one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import shards
from shards.edit.publish import publish
from shards.format.side_files import seal_json, seal_plan
from shards.verify import verify
from teacher_dump.run.identity import identity_digest


def add_side_files(folder: Path) -> None:
    """Add a plan and the result of a check."""
    identity = {"format": 1, "data": "stdlib", "seed": 0}
    plan = {"fingerprint": identity_digest(identity), "identity": identity, "place": "0" * 64}
    (folder / "plan.json").write_bytes(seal_plan(plan))
    (folder / "check.json").write_bytes(seal_json({"manifest_sha256": "0" * 64, "rows": 3, "sound": True}))


@pytest.fixture(scope="session")
def data_card(made_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data card that `publish` writes for the cache."""
    published = tmp_path_factory.mktemp("published")
    publish(shards.open(made_cache), str(published))
    return published / "README.md"


@pytest.fixture
def folder(cache_folder: Path, data_card: Path) -> Path:
    """Return the folder of a cache with an entry, plan, check and data card."""
    add_side_files(cache_folder)
    shutil.copy(data_card, cache_folder)
    assert verify(shards.open(cache_folder)) == []
    return cache_folder
