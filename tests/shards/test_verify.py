"""Tests of the check of a whole cache."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.edit.publish import publish
from shards.storage.store import Store
from shards.verify import verify
from tests.shards.faulty_s3 import Proxy


def test_a_sound_cache_has_no_problems(cache_folder: Path) -> None:
    assert verify(shards.open(cache_folder)) == []


def test_the_plan_says_what_to_have_again(cache_folder: Path) -> None:
    run = CliRunner()
    plan = json.loads(run.invoke(main, ["verify", str(cache_folder), "--fix-plan", "--json"]).stdout)
    assert plan["sound"]
    assert plan["again"] == []
    (cache_folder / "000000.arrow").unlink()
    (cache_folder / "tokenizer" / "tokenizer.json").write_text("{}")
    result = run.invoke(main, ["verify", str(cache_folder), "--fix-plan", "--json"])
    assert result.exit_code == 1
    plan = json.loads(result.stdout)
    assert {(a["name"], a["kind"]) for a in plan["again"]} == {
        ("000000.arrow", "shard"),
        ("tokenizer/tokenizer.json", "file"),
    }
    words = run.invoke(main, ["verify", str(cache_folder), "--fix-plan"]).stdout
    assert "again: 000000.arrow" in words
    (cache_folder / "manifest.json").write_text("{}")
    result = run.invoke(main, ["verify", str(cache_folder), "--fix-plan", "--json"])
    assert result.exit_code == 1


def test_each_file_is_read_once(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = shards.open(cache_folder)
    reads: Counter[str] = Counter()
    call = Store._call

    def counted(self: Store, method: str, num_bytes: int, *args: Any, **options: Any) -> Any:
        answer = call(self, method, num_bytes, *args, **options)
        if method == "cat_file":
            reads[Path(args[0]).name] += len(answer)
        return answer

    monkeypatch.setattr(Store, "_call", counted)
    assert verify(cache) == []
    sizes = {file.name: file.stat().st_size for file in cache_folder.rglob("*") if file.is_file()}
    assert reads == sizes


def test_a_shard_in_a_bucket_is_downloaded_once(s3: Proxy, cache_folder: Path) -> None:
    publish(shards.open(cache_folder), "s3://bucket/cache")
    cache = shards.open("s3://bucket/cache")
    s3.requests.clear()
    assert verify(cache) == []
    gets = Counter(path for method, path, _ in s3.requests if method == "GET" and path.endswith(".arrow"))
    assert gets == {f"/bucket/cache/{shard.name}": 1 for shard in cache.manifest.shards}


def test_every_problem_of_a_shard_is_reported(cache_folder: Path) -> None:
    cache = shards.open(cache_folder)
    shard = cache_folder / "000000.arrow"
    entry = cache.manifest.shards[0].chunks[1]
    raw = bytearray(shard.read_bytes())
    raw[entry.offset + entry.length // 2] ^= 1
    shard.write_bytes(raw)
    problems = verify(cache)
    assert [p.partition(": ")[2].partition(";")[0].partition("found")[0] for p in problems] == [
        "the digest is not that of the manifest",
        "",
        "the rows' digests are not those of the manifest",
    ]
    assert "000000.arrow chunk 1: found sha256" in problems[1]
    shard.write_bytes(raw[: entry.offset])
    problems = verify(cache)
    assert "bytes, the manifest says" in problems[0]
    assert sum("the file is cut short" in p for p in problems) == len(cache.manifest.shards[0].chunks) - 1
