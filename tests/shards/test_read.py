"""Is a cache complete or absent, and does damage ever go unnoticed?"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.commit import entry_path, read_entry
from shards.errors import CorruptShardError, FormatVersionError, IncompleteCacheError, ShardError, StoreError
from shards.format.manifest import Manifest
from shards.verify import verify
from shards.write import ShardWriter
from tests.shards.conftest import LAYOUT, make_cache, make_row


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


def test_rows_digest_is_the_content_and_not_the_chunking(tmp_path: Path) -> None:
    make_cache(tmp_path / "a", chunk_tokens=50)
    make_cache(tmp_path / "b", chunk_tokens=5000)
    a, b = shards.open(tmp_path / "a"), shards.open(tmp_path / "b")
    assert len(a) != len(b)
    assert a.manifest.rows_sha256 == b.manifest.rows_sha256
    assert a.manifest_sha256 != b.manifest_sha256
    make_cache(tmp_path / "c", seed=1)
    assert shards.open(tmp_path / "c").manifest.rows_sha256 != a.manifest.rows_sha256


def test_a_sound_cache_has_no_problems(cache_folder: Path) -> None:
    assert verify(shards.open(cache_folder)) == []


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
        (name, np.ascontiguousarray(getattr(chunk, name)).tobytes())
        for chunk in shards.open(folder)
        for name in ("tokens", "head_ids", "head_probs", "tail_mass", "draw_ids", "realised_logp", "log_z", "entropy")
    ]


def test_no_flipped_bit_gives_a_wrong_value(tmp_path: Path) -> None:
    """2,000 single-bit flips anywhere in the shards or the manifest: an error, or the very same values; and
    `verify` sees every one of them."""
    make_cache(tmp_path, shards=1, rows=4, chunk_tokens=60)
    truth = _content(tmp_path)
    files = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "000000.arrow.json"]
    chances = random.Random(0)
    survivors = unseen = 0
    for _ in range(2000):
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


def test_a_manifest_comes_back_as_it_was(cache_folder: Path) -> None:
    manifest = shards.open(cache_folder).manifest
    assert Manifest.from_bytes(manifest.to_bytes(), where="x") == manifest


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "a.arrow", layout=LAYOUT, task="a", fingerprint="f", chunk_tokens=10)
    with pytest.raises(RuntimeError), writer:
        writer.write(make_row(np.random.default_rng(0)))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    writer = ShardWriter(tmp_path, "a.arrow", layout=LAYOUT, task="a", fingerprint="f", chunk_tokens=10)
    with pytest.raises(StoreError, match=r"No space left on device.*free some room"), writer:
        writer.write(make_row(np.random.default_rng(0)))
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_shard_without_its_entry_does_not_count(cache_folder: Path) -> None:
    shard = cache_folder / "000000.arrow"
    assert read_entry(shard) is not None
    entry_path(shard).write_text("{")
    assert read_entry(shard) is None
    entry_path(shard).unlink()
    assert read_entry(shard) is None


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_complete_shard_or_none(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from tests.shards.conftest import make_cache
        print("ready", flush=True)
        make_cache(Path(sys.argv[1]), shards=50, rows=3, chunk_tokens=60)
        """
    )
    root = Path(__file__).parents[2]
    chances = random.Random(0)
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, cwd=root, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            process.wait(chances.uniform(0.01, 0.6))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        for shard in folder.glob("*.arrow"):
            pa.ipc.open_file(shard).read_all()
            entry = read_entry(shard)
            assert entry is None or entry.bytes == shard.stat().st_size


def test_inspect_says_what_is_there_and_verify_says_whether_it_is_sound(cache_folder: Path) -> None:
    run = CliRunner()
    result = run.invoke(main, ["inspect", str(cache_folder), "--json"])
    assert result.exit_code == 0
    facts = json.loads(result.output)
    cache = shards.open(cache_folder)
    assert facts["tokens"] == cache.tokens
    assert facts["rows"] == cache.rows
    assert facts["bytes_on_disk"] == cache.bytes_on_disk
    assert facts["bytes_per_token"] == pytest.approx(cache.bytes_per_token, abs=1e-3)
    assert facts["manifest_sha256"] == cache.manifest_sha256
    assert facts["rows_sha256"] == cache.manifest.rows_sha256
    assert "test/teacher" in run.invoke(main, ["inspect", str(cache_folder)]).output
    assert run.invoke(main, ["verify", str(cache_folder)]).exit_code == 0

    file = cache_folder / "000000.arrow"
    file.write_bytes(_damage(file.read_bytes(), 8000))
    result = run.invoke(main, ["verify", str(cache_folder)])
    assert result.exit_code == 1
    assert "000000.arrow" in result.output
    result = run.invoke(main, ["inspect", str(cache_folder / "nothing")])
    assert result.exit_code == 1
    assert "error: " in result.output
    assert "Traceback" not in result.output
