"""Tests of reading and writing through a faulty network: the right bytes, or an error that names the file."""

from __future__ import annotations

import hashlib
import os
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import shards
import shards.storage.store as store_module
from shards.errors import CorruptShardError, IncompleteCacheError, ShardError, StoreError
from shards.read import Cache
from shards.storage.store import open_store
from tests.shards.faulty_s3 import Proxy
from tests.shards.storage.conftest import URL, content


@pytest.mark.slow
def test_one_chunk_is_one_ranged_read(s3: Proxy, remote: Cache, cache_folder: Path) -> None:
    assert {path for _, path, _ in s3.requests} == {"/bucket/cache/manifest.json"}
    s3.misbehave(0)
    local = shards.open(cache_folder)
    for i in range(len(remote)):
        assert content(remote, i) == content(local, i)
    entries = [(s.name, c) for s in remote.manifest.shards for c in s.chunks]
    wanted = [("GET", f"/bucket/cache/{n}", f"bytes={c.offset}-{c.offset + c.length - 1}") for n, c in entries]
    assert s3.requests == wanted


@pytest.mark.slow
def test_through_a_faulty_network_comes_the_truth_or_a_named_error(
    s3: Proxy,
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
@pytest.mark.slow
def test_a_fault_that_stays_is_an_error_that_names_the_chunk(
    s3: Proxy,
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


@pytest.mark.slow
def test_a_stalled_reply_is_given_up_in_time(
    s3: Proxy,
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


def test_a_reply_that_was_damaged_once_is_asked_for_again(s3: Proxy, remote: Cache, cache_folder: Path) -> None:
    truth = content(shards.open(cache_folder), 0)
    answers = iter(["flip", ""])
    s3.choose = lambda method: next(answers)  # type: ignore[method-assign]
    assert content(remote, 0) == truth
    assert next(answers, None) is None


@pytest.mark.slow
def test_a_manifest_that_was_damaged_once_is_asked_for_again(s3: Proxy, remote: Cache) -> None:
    answers = iter(["flip", ""])
    s3.choose = lambda method: next(answers)  # type: ignore[method-assign]
    assert shards.open(URL).manifest == remote.manifest


def test_a_web_server_is_read_too_and_one_without_ranges_is_named(s3: Proxy, remote: Cache, cache_folder: Path) -> None:
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


def test_what_is_not_there_is_named_at_once(s3: Proxy) -> None:
    with pytest.raises(IncompleteCacheError, match=r"s3://bucket/nothing: found no manifest\.json"):
        shards.open("s3://bucket/nothing")
    assert len([r for r in s3.requests if r[0] == "GET"]) == 1


def test_an_upload_appears_whole_or_not_at_all(s3: Proxy, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(300_000))
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    for url in ("s3://bucket/up", f"file://{tmp_path}/up", "memory://up"):
        store = open_store(url)
        s3.misbehave(0.5, "500", "503", "reset", seed=1)
        moved: list[int] = []
        store.upload(source, "a/file", on_bytes=moved.append)
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


def test_a_place_that_can_only_be_read_is_named(s3: Proxy) -> None:
    with pytest.raises(StoreError, match="check"):
        open_store("http://127.0.0.1:9/x").put("a", b"x")


def test_too_little_memory_is_not_called_a_bad_network(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(cache_folder)

    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(type(store), "_call", fails)
    with pytest.raises(StoreError, match="not enough memory on this machine") as caught:
        store.read("manifest.json")
    assert "network" not in str(caught.value)
