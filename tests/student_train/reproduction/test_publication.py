"""Tests of the index of a published run: round trip, damage, strangers' names, relative addresses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shards.format.manifest import FileEntry
from shards.storage.store import open_store
from student_train.errors import TrainError
from student_train.reproduction.publication import (
    PUBLICATION_NAME,
    Publication,
    PublishedCache,
    read_publication,
    resolve,
)

INDEX = Publication(
    caches=(PublishedCache(url="../cache", manifest_sha256="ab" * 32),),
    files=(FileEntry(name="run.json", bytes=7, sha256="cd" * 32),),
    noise={"from": "a second run", "margins": {"kl": 0.01}},
)


def test_an_index_reads_as_it_was_written() -> None:
    assert Publication.from_bytes(INDEX.to_bytes(), where="x") == INDEX
    assert not INDEX.has_base
    assert replace(INDEX, files=(FileEntry(name="base/config.json", bytes=1, sha256=""),)).has_base


def test_no_byte_of_an_index_can_change_unnoticed() -> None:
    raw = INDEX.to_bytes()
    for place in range(len(raw)):
        damaged = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        try:
            found = Publication.from_bytes(damaged, where="x")
        except TrainError:
            continue
        assert found == INDEX  # white space


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"null", b'{"format": 1}', b"[" * 100_000])
def test_what_is_no_index_is_refused(raw: bytes) -> None:
    with pytest.raises(TrainError, match="found a damaged index"):
        Publication.from_bytes(raw, where="x")


@pytest.mark.parametrize("name", ["../run.json", "/etc/passwd", "a/../../b", "a\\b", "", "a//b"])
def test_a_name_outside_the_folder_is_refused(name: str) -> None:
    hostile = replace(INDEX, files=(FileEntry(name=name, bytes=1, sha256="ab"),))
    with pytest.raises(TrainError, match="expected one inside its folder"):
        Publication.from_bytes(hostile.to_bytes(), where="x")


@pytest.mark.parametrize(
    "changed", [{"bytes": -1}, {"bytes": "7"}, {"bytes": True}, {"name": 7}, {"sha256": None}, {"more": 1}]
)
def test_an_entry_of_other_types_is_refused(changed: dict[str, Any]) -> None:
    entry = {"name": "run.json", "bytes": 7, "sha256": "ab", **changed}
    content = json.loads(INDEX.to_bytes())
    content["files"] = [entry]
    with pytest.raises(TrainError, match="found a damaged index"):
        Publication.from_bytes(json.dumps(content).encode(), where="x")


def test_another_version_is_named() -> None:
    content = {**json.loads(INDEX.to_bytes()), "format": 9}
    with pytest.raises(TrainError, match="found format 9, expected 1"):
        Publication.from_bytes(json.dumps(content).encode(), where="x")


def test_a_folder_without_an_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=f"found no {PUBLICATION_NAME}, expected a run"):
        read_publication(open_store(tmp_path))


@pytest.mark.parametrize(
    ("url", "run", "expected"),
    [
        ("../cache", "s3://bucket/run", "s3://bucket/cache"),
        ("../cache", "https://host/a/run/", "https://host/a/cache"),
        ("../cache", "pub/run", "pub/cache"),
        ("../cache", "/pub/run", "/pub/cache"),
        ("../cache", "run", "cache"),
        ("s3://other/cache", "https://host/run", "s3://other/cache"),
        ("/data/cache", "/pub/run", "/data/cache"),
    ],
)
def test_an_address_is_relative_to_that_of_the_run(url: str, run: str, expected: str) -> None:
    assert resolve(url, run=run) == expected


def test_a_relative_address_stays_on_its_server() -> None:
    with pytest.raises(TrainError, match="which leaves host"):
        resolve("../../other/cache", run="https://host/run")
