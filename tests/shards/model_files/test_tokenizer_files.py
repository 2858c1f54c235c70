"""Tests of the copy of a tokenizer's files."""

from __future__ import annotations

import json
from pathlib import Path

from shards.model_files.tokenizer_files import strip_paths, write_tokenizer


def test_only_paths_are_removed_from_a_tokenizer_file() -> None:
    raw = b'{"bos_token": "/", "chat_template": "/x", "name_or_path": "org/name", "model_max_length": 8}'
    assert strip_paths(raw) == raw
    assert json.loads(strip_paths(b'{"vocab_file": "/home/x/v", "eos_token": "e"}')) == {"eos_token": "e"}
    assert strip_paths(b"not json") == b"not json"


def test_the_entries_are_those_of_the_files_that_exist(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b'{"model": {}}')
    (tmp_path / "config.json").write_bytes(b"{}")
    (entry,) = write_tokenizer(tmp_path, tmp_path / "cache")
    assert (entry.name, entry.bytes) == ("tokenizer/tokenizer.json", 13)
    assert (tmp_path / "cache" / entry.name).read_bytes() == b'{"model": {}}'
