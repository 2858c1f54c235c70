"""Tests of publishing and fetching: over a faulty network, after a kill, without tokens."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import shards
import shards.storage.store as store_module
from shards.cli import main
from shards.edit.publish import fetch, publish
from shards.errors import ShardError
from shards.format.manifest import Manifest
from shards.storage.store import open_store
from shards.verify import verify
from tests.shards.conftest import make_cache
from tests.shards.faulty_s3 import Proxy, s3_settings

URL = "s3://bucket/published"


def puts(proxy: Proxy) -> list[str]:
    return [
        path.split("?")[0].removeprefix("/bucket/published/") for method, path, _ in proxy.requests if method == "PUT"
    ]


def until_done(action: Callable[[], object]) -> None:
    """Repeat a transfer that may give up on a faulty network, as a user does. Transferred files are kept."""
    for _ in range(5):
        with contextlib.suppress(ShardError):
            action()
            return
    raise AssertionError("gave up five times")


@pytest.mark.parametrize("place", ["s3", "memory", "file"])
@pytest.mark.slow
def test_a_published_cache_is_fetched_and_verified_on_the_other_side(
    s3: Proxy,
    cache_folder: Path,
    tmp_path: Path,
    place: str,
) -> None:
    url = {"s3": URL, "memory": f"memory://{tmp_path}", "file": f"file://{tmp_path}/pub"}[place]
    here = shards.open(cache_folder)
    run = CliRunner()
    sent = run.invoke(main, ["publish", str(cache_folder), url])
    assert sent.exit_code == 0, sent.output
    assert "sent 3 files, skipped 0" in sent.output
    got = run.invoke(main, ["fetch", url, str(tmp_path / "there")])
    assert got.exit_code == 0, got.output
    there = shards.open(tmp_path / "there")
    assert there.manifest_sha256 == here.manifest_sha256
    assert (tmp_path / "there" / "manifest.json").read_bytes() == (cache_folder / "manifest.json").read_bytes()
    assert verify(there) == []
    assert (tmp_path / "there" / "README.md").read_text().startswith("---\npretty_name:")
    again = run.invoke(main, ["fetch", url, str(tmp_path / "there")])
    assert "fetched 0 files, skipped 3" in again.output


@pytest.mark.slow
def test_shards_go_first_and_the_manifest_last(s3: Proxy, cache_folder: Path) -> None:
    publish(shards.open(cache_folder), URL)
    expected = ["000000.arrow", "000001.arrow", "tokenizer/tokenizer.json", "README.md", "manifest.json"]
    assert puts(s3) == expected


@pytest.mark.slow
def test_a_bad_network_changes_nothing(
    s3: Proxy,
    cache_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = shards.open(cache_folder)
    monkeypatch.setattr(store_module, "ATTEMPT_S", 1.5)
    s3.stall_s = 2.0
    s3.misbehave(0.25, "500", "503", "reset", "stall", seed=3)
    until_done(lambda: publish(here, URL))
    s3.misbehave(0.25, "503", "reset", "cut", "short", "flip", seed=4)
    until_done(lambda: fetch(URL, tmp_path / "there"))
    assert sum(s3.met.values()) > 2
    s3.misbehave(0)
    there = shards.open(tmp_path / "there")
    assert there.manifest_sha256 == here.manifest_sha256
    assert verify(there) == []


@pytest.mark.slow
def test_a_publish_that_was_killed_is_continued(s3: Proxy, tmp_path: Path) -> None:
    """The process is killed while it sends the third shard: there is no manifest, and sent files are kept."""
    folder = tmp_path / "cache"
    make_cache(folder, shards=6, rows=3)
    program = textwrap.dedent(
        """
        import json, sys
        import fsspec
        fsspec.config.conf["s3"] = json.loads(sys.argv[1])
        import shards
        from shards.edit.publish import publish
        publish(shards.open(sys.argv[2]), sys.argv[3])
        """
    )
    third = threading.Event()
    passed = s3.choose

    def choose(method: str) -> str:
        if len(puts(s3)) == 3 and method == "PUT":
            third.set()
            time.sleep(5)
        return passed(method)

    s3.choose = choose  # type: ignore[method-assign]
    command = [sys.executable, "-c", program, json.dumps(s3_settings(s3.url)), str(folder), URL]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    assert third.wait(60)
    process.kill()
    process.wait()
    s3.choose = passed  # type: ignore[method-assign]
    with pytest.raises(ShardError, match=r"found no manifest\.json"):
        shards.open(URL)
    done = publish(shards.open(folder), URL)
    assert done.skipped >= 2
    assert done.sent + done.skipped == 7
    assert verify(shards.open(URL)) == []


def test_a_damaged_copy_is_mended_and_a_foreign_one_left_alone(cache_folder: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    fetch(str(cache_folder), there)
    raw = bytearray((there / "000001.arrow").read_bytes())
    raw[3000] ^= 1
    (there / "000001.arrow").write_bytes(raw)
    assert fetch(str(cache_folder), there).sent == 1
    assert verify(shards.open(there)) == []

    make_cache(tmp_path / "other", seed=9)
    with pytest.raises(ShardError, match="found another cache"):
        fetch(str(tmp_path / "other"), there)
    with pytest.raises(ShardError, match="found another cache"):
        publish(shards.open(tmp_path / "other"), str(there))


def test_damage_is_not_published(cache_folder: Path, tmp_path: Path) -> None:
    raw = bytearray((cache_folder / "000001.arrow").read_bytes())
    raw[-9] ^= 1
    (cache_folder / "000001.arrow").write_bytes(raw)
    with pytest.raises(ShardError, match=r"000001\.arrow: found another digest"):
        publish(shards.open(cache_folder), str(tmp_path / "pub"))
    assert not (tmp_path / "pub" / "manifest.json").exists()


def test_a_manifest_cannot_name_files_outside_its_folder(cache_folder: Path, tmp_path: Path) -> None:
    path = cache_folder / "manifest.json"
    manifest = Manifest.from_bytes(path.read_bytes(), where="")
    for name in ("../out.arrow", "/tmp/out.arrow", "a/../../out.arrow", "a\\..\\out.arrow"):
        bad = replace(manifest, shards=(replace(manifest.shards[0], name=name), *manifest.shards[1:]))
        path.write_bytes(bad.to_bytes())
        with pytest.raises(ShardError, match="expected one inside the cache"):
            fetch(str(cache_folder), tmp_path / "there")


@pytest.mark.slow
def test_the_bar_hears_of_every_byte_once(s3: Proxy, cache_folder: Path, tmp_path: Path) -> None:
    cache = shards.open(cache_folder)
    total = sum(s.bytes for s in cache.manifest.shards)
    s3.misbehave(0.15, "503", "reset", seed=5)
    for url in (URL, URL, str(tmp_path / "pub")):
        moved: list[int] = []
        publish(cache, url, on_bytes=moved.append)
        assert sum(moved) == total
    moved = []
    fetch(URL, tmp_path / "there", on_bytes=moved.append)
    assert sum(moved) == total


def test_a_url_that_can_only_be_read_is_an_error_in_one_line(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "FIRST_PAUSE_S", 0.01)
    result = CliRunner().invoke(main, ["publish", str(cache_folder), "http://127.0.0.1:9/x"])
    assert result.exit_code == 1
    assert result.output.strip().splitlines()[-1].startswith("error: ")
    assert open_store(cache_folder).exists("manifest.json")
    assert os.listdir(cache_folder)
