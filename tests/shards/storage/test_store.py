"""Does reading from anywhere give the truth or a named error, and does the cache of chunks keep its limit?"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

import shards
import shards.storage.store as store_module
from shards.errors import CorruptShardError, IncompleteCacheError, ShardError, StoreError
from shards.read import Cache
from shards.storage.chunk_cache import ChunkCache
from shards.storage.store import open_store
from tests.shards.conftest import make_cache
from tests.shards.faulty_s3 import Proxy, s3, s3_server  # noqa: F401 (fixtures)

URL = "s3://bucket/cache"
FIELDS = ("tokens", "head_ids", "head_probs", "tail_mass", "draw_ids", "realised_logp", "log_z", "entropy")


def content(cache: Cache, i: int) -> list[bytes]:
    chunk = cache[i]
    return [np.ascontiguousarray(getattr(chunk, name)).tobytes() for name in FIELDS]


@pytest.fixture
def cache_folder(tmp_path: Path) -> Path:
    """Return the folder of a cache of some twenty chunks."""
    make_cache(tmp_path / "cache", rows=16, chunk_tokens=50)
    return tmp_path / "cache"


@pytest.fixture
def remote(s3: Proxy, cache_folder: Path) -> Cache:  # noqa: F811
    """Return the test cache, opened from the S3 server."""
    store = open_store(URL)
    for name in ("000000.arrow", "000001.arrow", "tokenizer/tokenizer.json", "manifest.json"):
        store.put(name, (cache_folder / name).read_bytes())
    s3.misbehave(0)
    return shards.open(URL)


def test_one_chunk_is_one_ranged_read(s3: Proxy, remote: Cache, cache_folder: Path) -> None:  # noqa: F811
    assert {path for _, path, _ in s3.requests} == {"/bucket/cache/manifest.json"}
    s3.misbehave(0)
    local = shards.open(cache_folder)
    for i in range(len(remote)):
        assert content(remote, i) == content(local, i)
    entries = [(s.name, c) for s in remote.manifest.shards for c in s.chunks]
    wanted = [("GET", f"/bucket/cache/{n}", f"bytes={c.offset}-{c.offset + c.length - 1}") for n, c in entries]
    assert s3.requests == wanted


def test_through_a_faulty_network_comes_the_truth_or_a_named_error(
    s3: Proxy,  # noqa: F811
    remote: Cache,
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local = shards.open(cache_folder)
    monkeypatch.setattr(store_module, "ATTEMPT_S", 1.5)
    s3.stall_s = 2.0
    s3.misbehave(0.4, seed=2)
    right, said = 0, []
    for i in range(len(remote)):
        try:
            assert content(remote, i) == content(local, i)
            right += 1
        except ShardError as error:
            said.append(str(error))
    assert all(".arrow chunk" in s for s in said)
    assert right > len(remote) // 2
    assert len(s3.met) >= 3, "the proxy did its worst"


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("503", StoreError, r"000000\.arrow chunk 0: .*gave up after 2 attempts, check the address"),
        ("reset", StoreError, r"000000\.arrow chunk 0: .*gave up after 2 attempts"),
        ("cut", StoreError, r"000000\.arrow chunk 0: .*gave up after 2 attempts"),
        ("short", CorruptShardError, r"000000\.arrow chunk 0: found \d+ bytes, expected \d+; the file is cut short"),
        ("flip", CorruptShardError, r"000000\.arrow chunk 0: found sha256 .* the bytes are damaged"),
    ],
)
def test_a_fault_that_stays_is_an_error_that_names_the_chunk(
    s3: Proxy,  # noqa: F811
    remote: Cache,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    error: type[ShardError],
    said: str,
) -> None:
    monkeypatch.setattr(store_module, "ATTEMPTS", 2)
    if fault in ("reset", "cut"):  # s3fs repeats these itself until the attempt's time is over
        monkeypatch.setattr(store_module, "ATTEMPT_S", 0.5)
    s3.misbehave(1, fault)
    with pytest.raises(error, match=said):
        remote[0]


def test_a_stalled_reply_is_given_up_in_time(
    s3: Proxy,  # noqa: F811
    remote: Cache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_module, "ATTEMPT_S", 0.5)
    monkeypatch.setattr(store_module, "ATTEMPTS", 2)
    s3.stall_s = 20
    s3.misbehave(1, "stall")
    begin = time.monotonic()
    with pytest.raises(StoreError, match=r"chunk 0: FSTimeoutError.*gave up after 2 attempts"):
        remote[0]
    assert time.monotonic() - begin < 15


def test_a_reply_that_was_damaged_once_is_asked_for_again(s3: Proxy, remote: Cache, cache_folder: Path) -> None:  # noqa: F811
    truth = content(shards.open(cache_folder), 0)
    answers = iter(["flip", ""])
    s3.choose = lambda method: next(answers)  # type: ignore[method-assign]
    assert content(remote, 0) == truth
    assert next(answers, None) is None


def test_a_manifest_that_was_damaged_once_is_asked_for_again(s3: Proxy, remote: Cache) -> None:  # noqa: F811
    answers = iter(["flip", ""])
    s3.choose = lambda method: next(answers)  # type: ignore[method-assign]
    assert shards.open(URL).manifest == remote.manifest


def test_a_web_server_is_read_too_and_one_without_ranges_is_named(s3: Proxy, remote: Cache, cache_folder: Path) -> None:  # noqa: F811
    web = shards.open(f"{s3.url}/bucket/cache")
    assert content(web, 1) == content(shards.open(cache_folder), 1)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(cache_folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    plain = shards.open(f"http://127.0.0.1:{server.server_address[1]}")
    with pytest.raises(StoreError, match="does not answer ranged reads"):
        plain[0]
    server.shutdown()


def test_what_is_not_there_is_named_at_once(s3: Proxy) -> None:  # noqa: F811
    with pytest.raises(IncompleteCacheError, match=r"s3://bucket/nothing: found no manifest\.json"):
        shards.open("s3://bucket/nothing")
    assert len([r for r in s3.requests if r[0] == "GET"]) == 1


# ---------------------------------------------------------------------------------------------------------------
# Chunks kept on this machine


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


def test_kept_chunks_are_not_asked_for_again_and_never_exceed_the_limit(
    s3: Proxy,  # noqa: F811
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


def test_a_damaged_kept_chunk_is_fetched_again(s3: Proxy, remote: Cache, tmp_path: Path) -> None:  # noqa: F811
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
            cwd=Path(__file__).parents[2],
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


def test_an_upload_appears_whole_or_not_at_all(s3: Proxy, tmp_path: Path) -> None:  # noqa: F811
    source = tmp_path / "file"
    source.write_bytes(os.urandom(300_000))
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    for url in ("s3://bucket/up", f"file://{tmp_path}/up", "memory://up"):
        store = open_store(url)
        s3.misbehave(0.5, "500", "503", "reset", seed=1)
        moved: list[int] = []
        store.upload(source, "a/file", moved=moved.append)
        s3.misbehave(0)
        assert sum(moved) == 300_000
        assert store.holds("a/file", size=300_000, sha256=sha256)
        assert not store.exists("a/other")
        store.put("small", b"x")
        assert store.read("small") == b"x"
        store.download("a/file", tmp_path / "down" / url[:2], size=300_000, sha256=sha256)
        with pytest.raises(CorruptShardError, match="a/file: found sha256"):
            store.download("a/file", tmp_path / "down" / "not", size=300_000, sha256="0" * 64)
        assert not (tmp_path / "down" / "not").exists()
        assert not list((tmp_path / "down").glob(".*"))


def test_a_place_that_can_only_be_read_is_named(s3: Proxy) -> None:  # noqa: F811
    with pytest.raises(StoreError, match="check"):
        open_store("http://127.0.0.1:9/x").put("a", b"x")
