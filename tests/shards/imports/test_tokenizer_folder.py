"""Tests of finding the tokenizer of an import."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from shards.errors import ShardError
from shards.imports.tokenizer_folder import find_tokenizer
from tests.shards.imports.conftest import END, PAD


def test_special_ids_come_from_the_folder(tokenizer_folder: Path) -> None:
    found = find_tokenizer(str(tokenizer_folder))
    assert (found.folder, found.pad_token) == (tokenizer_folder, PAD)
    assert found.prefix({END}) == (END,)
    assert found.prefix({END, 5}) == ()
    assert found.prefix({5}) == ()
    assert found.prefix(set()) == ()


def test_padding_that_also_ends_texts_is_none(tokenizer_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
    assert find_tokenizer(str(tmp_path)).pad_token is None
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "<end>", "eos_token": "<end>"}')
    assert find_tokenizer(str(tmp_path)).pad_token is None
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ShardError, match=r"tokenizer_config\.json: found no JSON"):
        find_tokenizer(str(tmp_path))


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"found no tokenizer\.json"):
        find_tokenizer(str(tmp_path))
    with pytest.raises(ShardError, match=r"found no such folder, expected one with tokenizer\.json, or a hub name"):
        find_tokenizer(str(tmp_path / "missing"))


def test_the_hub_is_asked_for_a_name(tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked = []

    def download(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo, revision, allow_patterns[0]))
        if repo == "org/missing":
            raise OSError("404\nand more")
        return str(tokenizer_folder)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_tokenizer("org/name@abc").pad_token == PAD
    assert asked == [("org/name", "abc", "tokenizer.json")]
    with pytest.raises(ShardError, match=r"could not fetch it from the hub \(404\); name a folder"):
        find_tokenizer("org/missing")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ShardError, match=r"run pip install 'teacherless\[hub\]'"):
        find_tokenizer("org/name")
