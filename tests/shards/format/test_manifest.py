"""Tests of reading and writing manifest.json."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.errors import CorruptShardError, FormatVersionError, ShardError
from shards.format.manifest import Manifest
from teacher_dump.run.identity import identity_digest
from tests.shards.conftest import WRITER


def test_an_edited_manifest_is_refused(cache_folder: Path) -> None:
    path = cache_folder / "manifest.json"
    path.write_text(path.read_text().replace("test/teacher", "best/teacher"))
    with pytest.raises(CorruptShardError, match="damaged or edited"):
        shards.open(cache_folder)


def test_a_newer_format_is_refused_by_version(cache_folder: Path) -> None:
    path = cache_folder / "manifest.json"
    data = json.loads(path.read_text())
    data["version"] = 3
    path.write_text(json.dumps(data))
    with pytest.raises(FormatVersionError, match="found format version 3, expected 1 or 2; upgrade"):
        shards.open(cache_folder)


def test_a_manifest_comes_back_as_it_was(cache_folder: Path, response_folder: Path) -> None:
    for folder, version in ((cache_folder, 1), (response_folder, 2)):
        manifest = shards.open(folder).manifest
        assert manifest.layout.version == version
        assert Manifest.from_bytes(manifest.to_bytes(), where="x") == manifest


def test_the_writer_of_responses_comes_back_also_if_there_is_none(response_folder: Path) -> None:
    manifest = shards.open(response_folder).manifest
    assert manifest.writer == WRITER
    assert manifest.body()["writer"]["temperature"] == WRITER.temperature
    unwritten = replace(manifest, writer=None)
    assert unwritten.body()["writer"] is None
    assert Manifest.from_bytes(unwritten.to_bytes(), where="x") == unwritten
    assert unwritten.sha256 != manifest.sha256


def test_a_cache_of_documents_has_no_writer(cache_folder: Path) -> None:
    manifest = shards.open(cache_folder).manifest
    assert "writer" not in manifest.body()
    with pytest.raises(ShardError, match="writer: found student in a cache of documents"):
        replace(manifest, writer=WRITER)


@pytest.mark.parametrize("value", [7, "x", [], {}, {"name": "a"}])
def test_another_writer_than_the_format_has_is_one_line(value: object, response_folder: Path) -> None:
    body = {**shards.open(response_folder).manifest.body(), "writer": value}
    text = json.dumps({"sha256": identity_digest(body), **body})
    with pytest.raises(ShardError, match="m: "):
        Manifest.from_bytes(text.encode(), where="m")


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
