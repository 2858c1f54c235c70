"""Tests of the check of a whole cache."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.edit.publish import publish
from shards.errors import CorruptShardError
from shards.format.batch import read_batch, row_digests
from shards.read import Cache
from shards.storage.store import Store
from shards.storage.temp_files import temp_path
from shards.verify import verify
from shards.write import BatchWriter
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


@pytest.mark.slow
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


def with_changed_rows(folder: Path, change: Callable[[pa.RecordBatch], pa.RecordBatch]) -> Cache:
    """Return a cache of the changed batches of the shards, with the digests of files, chunks and rows right."""
    cache = shards.open(folder)
    layout, entries = cache.manifest.layout, []
    for shard in cache.manifest.shards:
        schema = pa.ipc.open_file(folder / shard.name).schema
        reader = pa.ipc.open_file(pa.BufferReader((folder / shard.name).read_bytes()))
        with BatchWriter(temp_path(folder / shard.name), schema) as writer:
            for i in range(reader.num_record_batches):
                batch = change(read_batch(layout, reader.get_batch(i).serialize().to_pybytes()))
                digests = pa.array(list(row_digests(batch)), pa.binary())
                columns = [digests if n == "row_sha256" else batch.column(n) for n in batch.schema.names]
                writer.write(pa.RecordBatch.from_arrays(columns, schema=schema))
            entries.append(writer.finish(shard.name))
            writer.path.rename(folder / shard.name)
        (folder / f"{shard.name}.json").unlink()
    (folder / "manifest.json").write_bytes(replace(cache.manifest, shards=tuple(entries)).to_bytes())
    return shards.open(folder)


def _set(batch: pa.RecordBatch, name: str, value: object) -> pa.RecordBatch:
    """Return a batch with one value in all rows of a column."""
    column = batch.schema.get_field_index(name)
    field = batch.schema.field(column)
    return batch.set_column(column, field, pa.array([value] * batch.num_rows, field.type))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("messages", "[]", "expected a canonical JSON list"),
        ("messages", '[{"role":"user","content":"x"}]', "expected a canonical JSON list"),
        ("messages", '[{"content":"other","role":"user"}]', "expected the digest of the row's messages"),
        ("document", b"x" * 32, "expected the digest of the row's messages"),
        ("context", 0, "context: found a row of fewer tokens"),
        ("context", 10**6, "context: found a row of fewer tokens"),
        ("context", 2, "head_count: found"),
    ],
)
def test_rows_that_are_no_responses_are_reported(name: str, value: object, said: str, response_folder: Path) -> None:
    problems = verify(with_changed_rows(response_folder, lambda batch: _set(batch, name, value)))
    assert any(said in problem and "000000.arrow chunk 0: " in problem for problem in problems), problems


def test_rows_written_again_unchanged_are_sound(response_folder: Path) -> None:
    assert verify(with_changed_rows(response_folder, lambda batch: batch)) == []


def test_a_shard_of_the_other_version_is_reported(cache_folder: Path, response_folder: Path) -> None:
    responses = shards.open(response_folder)
    for shard in responses.manifest.shards:
        (cache_folder / shard.name).write_bytes((response_folder / shard.name).read_bytes())
        (cache_folder / f"{shard.name}.json").write_bytes((response_folder / f"{shard.name}.json").read_bytes())
    documents = replace(shards.open(cache_folder).manifest, shards=responses.manifest.shards)
    (cache_folder / "manifest.json").write_bytes(documents.to_bytes())
    problems = verify(shards.open(cache_folder))
    assert any("found format version 2, the manifest says 1" in problem for problem in problems)
    assert any("the columns are not those of the manifest's layout" in problem for problem in problems)
    with pytest.raises(CorruptShardError, match=r"000000\.arrow chunk 0: does not decode"):
        list(shards.open(cache_folder))
