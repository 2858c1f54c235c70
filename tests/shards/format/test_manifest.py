"""Tests of reading and writing manifest.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.edit.publish import publish
from shards.errors import CorruptShardError, FormatVersionError, ShardError
from shards.format.manifest import Manifest
from shards.format.side_files import seal_json, seal_plan
from shards.verify import verify
from teacher_dump.run.identity import identity_digest


def test_an_edited_manifest_is_refused(cache_folder: Path) -> None:
    path = cache_folder / "manifest.json"
    path.write_text(path.read_text().replace("test/teacher", "best/teacher"))
    with pytest.raises(CorruptShardError, match="damaged or edited"):
        shards.open(cache_folder)


def test_a_newer_format_is_refused_by_version(cache_folder: Path) -> None:
    path = cache_folder / "manifest.json"
    data = json.loads(path.read_text())
    data["version"] = 2
    path.write_text(json.dumps(data))
    with pytest.raises(FormatVersionError, match="found format version 2, expected 1; upgrade"):
        shards.open(cache_folder)


def test_a_manifest_comes_back_as_it_was(cache_folder: Path) -> None:
    manifest = shards.open(cache_folder).manifest
    assert Manifest.from_bytes(manifest.to_bytes(), where="x") == manifest


def add_side_files(folder: Path) -> None:
    identity = {"format": 1, "data": "stdlib", "seed": 0}
    plan = {"fingerprint": identity_digest(identity), "identity": identity, "place": "0" * 64}
    (folder / "plan.json").write_bytes(seal_plan(plan))
    (folder / "check.json").write_bytes(seal_json({"manifest_sha256": "0" * 64, "rows": 3, "sound": True}))


@pytest.fixture
def folder(cache_folder: Path) -> Path:
    """Return a cache with every kind of file that a command of ours leaves in one."""
    add_side_files(cache_folder)
    published = cache_folder.with_name("published")
    publish(shards.open(cache_folder), str(published))
    shutil.copy(published / "README.md", cache_folder)
    assert verify(shards.open(cache_folder)) == []
    return cache_folder


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"format": "teacherless-shards", "version": 1, "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"format": "teacherless-shards", "version": 1, "report": {"x": NaN}}',
        '{"format": "teacherless-shards", "version": 1, "x": Infinity}',
        '{"format": "teacherless-shards", "version": 1, "x": ' + "9" * 10_000 + "}",
        "\x00" * 100,
        "",
    ],
)
def test_a_manifest_with_nan_or_deep_nesting_is_one_line(text: str, folder: Path) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(CorruptShardError, match=r"manifest\.json"):
        shards.open(folder)
    for command in ("verify", "inspect"):
        result = CliRunner().invoke(main, [command, str(folder)])
        assert result.exit_code == 1
        assert result.output.count("\n") == 1


@pytest.mark.parametrize("key", ["layout", "teacher", "tokenizer", "files", "shards", "totals"])
@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [[]], {"a": 1}])
def test_a_manifest_of_another_shape_is_one_line(key: str, value: object, folder: Path) -> None:
    body = {**shards.open(folder).manifest.body(), key: value}
    text = json.dumps({"sha256": identity_digest(body), **body})
    if (key, value) == ("totals", value) or (value in ([], {}) and key in ("files", "shards")):
        Manifest.from_bytes(text.encode(), where="m")
        return
    with pytest.raises(ShardError, match=r"m: |layout|vocab_size"):
        Manifest.from_bytes(text.encode(), where="m")
