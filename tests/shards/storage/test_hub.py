"""Tests of hf:// addresses against a fake hub: publishing in few commits, fetching, interruptions, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import shards
import shards.storage.hub as hub_module
from shards.cli import main
from shards.errors import IncompleteCacheError, StoreError
from shards.storage.store import open_store
from shards.verify import verify
from tests.shards.fake_hub import FakeHub

URL = "hf://datasets/me/cache"


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("url", [URL, f"{URL}/folder/inside"])
def test_a_cache_is_published_and_fetched(hub: FakeHub, cache_folder: Path, tmp_path: Path, url: str) -> None:
    repository = hub.create("datasets", "me/cache")
    sent = invoke("publish", cache_folder, url)
    assert sent.exit_code == 0, sent.output
    folder = url.removeprefix(URL).lstrip("/")
    names = [[name.removeprefix(folder).lstrip("/") for name in commit] for commit in repository.commits]
    assert names[-2:] == [["README.md"], ["manifest.json"]]
    manifest = shards.open(cache_folder).manifest
    assert names[0] == [entry.name for entry in (*manifest.shards, *manifest.files)]  # all at once
    assert len(names) == 3
    got = invoke("fetch", url, tmp_path / "there")
    assert got.exit_code == 0, got.output
    there = shards.open(tmp_path / "there")
    assert there.manifest_sha256 == shards.open(cache_folder).manifest_sha256
    assert verify(there) == []
    hub.requests.clear()
    again = invoke("publish", cache_folder, url)
    assert "sent 0 files" in again.output
    assert not any(command == "PUT" for command, *_ in hub.requests)


def test_a_commit_has_a_limited_number_of_files(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = hub.create("datasets", "me/cache")
    monkeypatch.setattr(hub_module, "FILES_PER_COMMIT", 2)
    monkeypatch.setattr(hub_module, "IN_COMMIT_BYTES", 5)
    file = tmp_path / "file"
    counted: list[int] = []
    with open_store(URL).uploads() as upload:
        for number, content in enumerate((b"small", b"larger", b"tiny")):
            file.write_bytes(content)
            upload(file, f"{number}.arrow", on_bytes=counted.append)
            file.unlink()  # the content was sent
    assert repository.commits == [["0.arrow", "1.arrow"], ["2.arrow"]]
    assert repository.files == {"0.arrow": b"small", "1.arrow": b"larger", "2.arrow": b"tiny"}
    assert counted == [5, 6, 4]


@pytest.mark.slow
def test_files_of_an_interrupted_publish_do_not_appear(hub: FakeHub, cache_folder: Path) -> None:
    repository = hub.create("datasets", "me/cache")
    hub.fault = lambda method, path: 503 if method == "POST" and "/commit/" in path else None
    refused = invoke("publish", cache_folder, URL)
    assert refused.exit_code == 1
    assert "gave up after 5 attempts" in refused.output
    assert repository.files == {}
    assert hub.blobs  # the content is there, and no name refers to it
    failed = iter([503, 503])
    hub.fault = lambda method, path: next(failed, None) if "/commit/" in path else None
    assert invoke("publish", cache_folder, URL).exit_code == 0
    assert verify(shards.open(URL)) == []


def test_a_repository_that_does_not_exist_is_named(hub: FakeHub, cache_folder: Path, tmp_path: Path) -> None:
    for refused in (invoke("publish", cache_folder, URL), invoke("fetch", URL, tmp_path / "there")):
        assert refused.exit_code == 1
        assert f"error: {URL}: found no such repository or revision, or no access to it" in refused.output
        assert len(refused.output.strip().splitlines()) == 1
    assert len(hub.requests) < 20  # no attempt is repeated


def test_without_the_right_to_write_nothing_is_repeated(
    hub: FakeHub, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.create("datasets", "me/cache")
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_reader")
    refused = invoke("publish", cache_folder, URL)
    assert refused.exit_code == 1
    assert "check your access to it" in refused.output
    assert len(refused.output.strip().splitlines()) == 1
    assert sum("/preupload/" in path for _, path, _ in hub.requests) == 1


def test_a_file_that_gitignore_excludes_is_an_error(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    hub.create("datasets", "me/cache")
    monkeypatch.setattr(HfApi, "create_commit", lambda *_, **__: None)
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(IncompleteCacheError), open_store(URL).uploads() as upload:
        upload(tmp_path / "file", "file.arrow")


def test_a_range_is_read_alone(hub: FakeHub) -> None:
    hub.create("datasets", "me/cache").files["file.arrow"] = bytes(range(200))
    assert open_store(URL).read_range("file.arrow", 10, 20) == bytes(range(10, 30))
    assert [asked for _, path, asked in hub.requests if "/resolve/" in path] == ["bytes=10-29"]


def test_a_refused_card_is_an_error_that_is_not_repeated(hub: FakeHub) -> None:
    hub.create("datasets", "me/cache")
    with pytest.raises(StoreError, match=r"README\.md"):
        open_store(URL).put("README.md", b"---\nlicense: unknown\n---\n")
    assert sum(path == "/api/validate-yaml" for _, path, _ in hub.requests) == 1
