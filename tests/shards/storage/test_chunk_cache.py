"""Tests of the local cache of chunks: its limit, its damage, its sharing."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import shards
from shards.errors import ShardError
from shards.read import Cache
from shards.storage.chunk_cache import ChunkCache
from tests.shards.conftest import make_cache
from tests.shards.faulty_s3 import Proxy
from tests.shards.storage.conftest import URL, content


def kept_bytes(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def test_a_limit_below_the_largest_chunk_is_refused_by_name(cache_folder: Path, tmp_path: Path) -> None:
    largest = max(c.length for s in shards.open(cache_folder).manifest.shards for c in s.chunks)
    with pytest.raises(ShardError, match=rf"cache_bytes: found {largest - 1:,}, expected at least {largest:,}"):
        shards.open(cache_folder, cache_dir=tmp_path / "k", cache_bytes=largest - 1)
    with pytest.raises(ShardError, match="cache_bytes: found none"):
        shards.open(cache_folder, cache_dir=tmp_path / "k")
    shards.open(cache_folder, cache_dir=tmp_path / "k", cache_bytes=largest)


@pytest.mark.slow
def test_kept_chunks_are_not_asked_for_again_and_never_exceed_the_limit(
    s3: Proxy,
    remote: Cache,
    tmp_path: Path,
) -> None:
    lengths = [c.length for s in remote.manifest.shards for c in s.chunks]
    limit = max(lengths) + sum(lengths) // 3
    cache = shards.open(URL, cache_dir=tmp_path / "k", cache_bytes=limit)
    for i in range(len(cache)):
        assert content(cache, i) == content(remote, i)
        assert kept_bytes(tmp_path / "k") <= limit
    s3.misbehave(0)
    last = len(cache) - 1
    assert content(cache, last)
    assert s3.requests == []
    assert content(cache, 0)
    assert len(s3.requests) == 1, "the first went long ago"


def test_the_chunk_used_longest_ago_goes_first(tmp_path: Path) -> None:
    kept = ChunkCache.at(tmp_path, limit_bytes=3, chunks=())
    names = {n: hashlib.sha256(n).hexdigest() for n in (b"a", b"b", b"c", b"d")}
    for age, n in enumerate((b"a", b"b", b"c")):
        kept.put(names[n], n)
        os.utime(tmp_path / f"{names[n]}.chunk", (age, age))
    assert kept.get(names[b"a"]) == b"a"
    kept.put(names[b"d"], b"d")
    assert [n for n in names if kept.get(names[n])] == [b"a", b"c", b"d"]


@pytest.mark.slow
def test_a_damaged_kept_chunk_is_fetched_again(s3: Proxy, remote: Cache, tmp_path: Path) -> None:
    cache = shards.open(URL, cache_dir=tmp_path / "k", cache_bytes=10**9)
    truth = content(cache, 0)
    (path,) = (tmp_path / "k").glob("*.chunk")
    for damaged in (path.read_bytes()[:-1], b"", bytes(len(path.read_bytes()))):
        path.write_bytes(damaged)
        s3.misbehave(0)
        assert content(cache, 0) == truth
        assert len(s3.requests) == 1
    assert content(cache, 0) == truth
    assert len(s3.requests) == 1


def test_leftovers_of_a_killed_process_are_cleared(tmp_path: Path) -> None:
    kept = ChunkCache.at(tmp_path, limit_bytes=10, chunks=())
    (tmp_path / "0.part").write_bytes(b"123456789")
    kept.put(hashlib.sha256(b"ab").hexdigest(), b"ab")
    assert kept_bytes(tmp_path) == 2


@pytest.mark.slow
def test_two_processes_share_a_folder_within_its_limit(tmp_path: Path) -> None:
    make_cache(tmp_path / "cache", shards=1, rows=12, chunk_tokens=60)
    lengths = [c.length for s in shards.open(tmp_path / "cache").manifest.shards for c in s.chunks]
    limit = max(lengths) * 2
    program = textwrap.dedent(
        """
        import random, sys
        import shards
        chances = random.Random(sys.argv[1])
        cache = shards.open(sys.argv[2], cache_dir=sys.argv[3], cache_bytes=int(sys.argv[4]))
        for _ in range(300):
            cache.chunk_bytes(chances.randrange(len(cache)))
        """
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(n), str(tmp_path / "cache"), str(tmp_path / "k"), str(limit)],
            cwd=Path(__file__).parents[3],
        )
        for n in range(2)
    ]
    most = 0
    while any(w.poll() is None for w in workers):
        if (tmp_path / "k").exists():
            most = max(most, kept_bytes(tmp_path / "k"))
        time.sleep(0.005)
    assert [w.returncode for w in workers] == [0, 0]
    assert 0 < most <= limit
