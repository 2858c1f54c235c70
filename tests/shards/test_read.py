"""Tests of reading caches: rows in order, and an error for every kind of damage."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import shards
from shards.errors import CorruptShardError, IncompleteCacheError, ShardError, StoreError
from shards.format.messages import parse_messages
from shards.verify import verify
from tests.exhaustive import EXHAUSTIVE
from tests.shards.conftest import make_cache, make_response_cache


def test_written_rows_are_read_back_in_order(tmp_path: Path) -> None:
    rows = make_cache(tmp_path)
    cache = shards.open(tmp_path)
    assert cache.rows == len(rows) == 12
    assert cache.tokens == sum(len(r.tokens) for r in rows)
    assert len(cache) > 2
    read = [chunk.row(r) for chunk in cache for r in range(len(chunk.rows))]
    for row, found in zip(rows, read, strict=True):
        assert found.rows == (row.info,)
        assert np.array_equal(found.tokens, row.tokens)
        assert np.array_equal(found.head_ids, row.head_ids)
        assert np.array_equal(found.draw_ids, row.draw_ids)
    assert [cache.chunk_rows(i) for i in range(len(cache))] == [len(c.rows) for c in cache]
    assert [cache.chunk_tokens(i) for i in range(len(cache))] == [len(c.tokens) for c in cache]


def test_responses_are_read_back_with_their_context_and_messages(tmp_path: Path) -> None:
    rows = make_response_cache(tmp_path)
    cache = shards.open(tmp_path)
    assert cache.manifest.layout.version == 2
    assert cache.tokens == sum(len(r.tokens) for r in rows)
    read = [chunk.row(r) for chunk in cache for r in range(len(chunk.rows))]
    assert len({row.info.document for row in rows}) < len(rows)
    for row, found in zip(rows, read, strict=True):
        assert found.rows == (row.info,)
        roles = [message["role"] for message in parse_messages(found.rows[0].messages)]
        assert roles == (["system", "user"] if row.info.messages else [])
        assert np.array_equal(found.tokens, row.tokens)
        assert np.array_equal(found.labels, row.labels)
        assert len(found.entropy) == len(row.tokens) - row.info.context
    assert verify(cache) == []


def test_other_tools_open_a_shard_as_it_is(cache_folder: Path) -> None:
    import datasets
    import polars

    file = cache_folder / "000000.arrow"
    rows = shards.open(cache_folder).manifest.shards[0].rows
    table = pa.ipc.open_file(file).read_all()
    assert table.num_rows == rows
    frame = polars.read_ipc(file)
    assert frame["tokens"].to_list() == table["tokens"].to_pylist()
    data = datasets.load_dataset(
        "arrow", data_files=str(file), split="train", cache_dir=str(cache_folder.parent / "hf")
    )
    assert data["tokens"][:] == table["tokens"].to_pylist()
    streamed = datasets.load_dataset("arrow", data_files=str(file), split="train", streaming=True)
    assert sum(1 for _ in streamed) == rows


def _damage(raw: bytes, bit: int) -> bytes:
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _content(folder: Path) -> list[tuple[str, bytes]]:
    """Return all decoded values, for comparison."""
    return [
        (name, np.ascontiguousarray(getattr(chunk, name)).tobytes() + repr(chunk.rows).encode())
        for chunk in shards.open(folder)
        for name in ("tokens", "head_ids", "head_probs", "tail_mass", "draw_ids", "label_logp", "log_z", "entropy")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_no_flipped_bit_gives_a_wrong_value(version: int, tmp_path: Path) -> None:
    """Single-bit flips anywhere in the shards or the manifest: an error, or the very same values.

    `verify` sees every one of them.
    """
    if version == 1:
        make_cache(tmp_path, shards=1, rows=4, chunk_tokens=60)
    else:
        make_response_cache(tmp_path, shards=1, prompts=1, chunk_tokens=60)
    truth = _content(tmp_path)
    files = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "000000.arrow.json"]
    chances = random.Random(0)
    survivors = unseen = 0
    for _ in range(2000 if EXHAUSTIVE else 400):
        path = chances.choice(files)
        raw = path.read_bytes()
        path.write_bytes(_damage(raw, chances.randrange(8 * len(raw))))
        with contextlib.suppress(ShardError):
            survivors += _content(tmp_path) != truth
        with contextlib.suppress(ShardError):
            unseen += not verify(shards.open(tmp_path))
        path.write_bytes(raw)
    assert survivors == 0
    assert unseen == 0


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_a_shard_cut_short_is_an_error_that_names_it(cache_folder: Path, part: float) -> None:
    file = cache_folder / "000001.arrow"
    raw = file.read_bytes()
    file.write_bytes(raw[: int(len(raw) * part)])
    problems = verify(shards.open(cache_folder))
    assert any("000001.arrow" in p for p in problems)
    if part < 0.9:
        with pytest.raises(CorruptShardError, match=r"000001\.arrow chunk"):
            list(shards.open(cache_folder))


def test_swapped_shards_are_an_error(cache_folder: Path) -> None:
    a, b = cache_folder / "000000.arrow", cache_folder / "000001.arrow"
    shutil.move(a, cache_folder / "x")
    shutil.move(b, a)
    shutil.move(cache_folder / "x", b)
    with pytest.raises(CorruptShardError, match=r"000000\.arrow chunk 0"):
        shards.open(cache_folder)[0]


def test_a_missing_shard_is_named(cache_folder: Path) -> None:
    (cache_folder / "000001.arrow").unlink()
    with pytest.raises(IncompleteCacheError, match=r"000001\.arrow"):
        list(shards.open(cache_folder))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: None, "found no manifest.json"),
        (lambda p: p.mkdir(), "found no manifest.json"),
        (lambda p: p.write_text("x"), "found a file"),
        (lambda p: (p.mkdir(), (p / "manifest.json").write_text("{")), "found no JSON"),
        (lambda p: (p.mkdir(), (p / "manifest.json").write_text("[]")), "expected a manifest"),
    ],
)
def test_what_is_no_cache_is_said_to_be_none(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    make(tmp_path / "c")
    with pytest.raises(ShardError, match=said):
        shards.open(tmp_path / "c")


def test_an_unknown_kind_of_url_is_refused() -> None:
    with pytest.raises(StoreError, match="nowhere://"):
        shards.open("nowhere://bucket")
