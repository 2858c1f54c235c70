"""Tests of reading and writing manifest.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.errors import CorruptShardError, FormatVersionError, ShardError
from shards.format.manifest import Manifest
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
