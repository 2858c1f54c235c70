"""Tests of the rules in a tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.errors import ShardError
from shards.model_files.tokenizer import TokenizerRules

ADDED = [{"id": 4, "content": "<s>", "special": True}, {"id": 5, "content": "\u2581\u2581", "special": False}]


def write_rules(folder: Path, **changes: Any) -> Path:
    model = {"type": "BPE", "vocab": {"\u2581a": 0, "b": 1, "<0xE4>": 2, "c": 3}, "merges": ["b c"]}
    data = {"model": model | changes, "added_tokens": ADDED, "version": "1.0", "truncation": None}
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(data))
    return folder


def test_pieces_include_added_tokens(tmp_path: Path) -> None:
    rules = TokenizerRules.load(write_rules(tmp_path))
    assert rules.pieces == {"\u2581a": 0, "b": 1, "<0xE4>": 2, "c": 3, "<s>": 4, "\u2581\u2581": 5}
    assert rules.pieces_from(3) == [(3, "c"), (5, "\u2581\u2581")]


def test_bytes_of_sentencepiece_come_from_the_pieces(tmp_path: Path) -> None:
    table = TokenizerRules.load(write_rules(tmp_path)).token_bytes()
    assert table == {0: b" a", 1: b"b", 2: b"\xe4", 3: b"c", 4: b"", 5: b"  "}


def test_the_fingerprint_ignores_how_merges_are_written_and_what_changes_no_ids(tmp_path: Path) -> None:
    first = TokenizerRules.load(write_rules(tmp_path / "a"))
    pairs = TokenizerRules.load(write_rules(tmp_path / "b", merges=[["b", "c"]]))
    assert first.merges == pairs.merges == [["b", "c"]]
    assert first.fingerprint() == pairs.fingerprint()
    path = tmp_path / "b" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation": {"max_length": 8}}))
    assert TokenizerRules.load(tmp_path / "b").fingerprint() == first.fingerprint()
    other = TokenizerRules.load(write_rules(tmp_path / "c", merges=[]))
    assert other.fingerprint() != first.fingerprint()


@pytest.mark.parametrize(("field", "value"), [("dropout", 0.1), ("alpha", 0.2), ("nbest_size", 4)])
def test_a_tokenizer_that_samples_has_no_fingerprint(field: str, value: float, tmp_path: Path) -> None:
    rules = TokenizerRules.load(write_rules(tmp_path, **{field: value}))
    with pytest.raises(ShardError, match=rf"the tokenizer samples \({field} {value}"):
        rules.fingerprint()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "found no tokenizer.json"), ("{", "found no JSON"), ("[]", "expected an object with a model")],
)
def test_a_folder_without_rules_is_one_line(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ShardError, match=message):
        TokenizerRules.load(tmp_path)


def test_a_piece_of_another_family_is_named(tmp_path: Path) -> None:
    rules = TokenizerRules.load(write_rules(tmp_path, type="WordPiece"))
    with pytest.raises(ShardError, match=r"token 0 '\u2581a' is a piece of another family"):
        rules.token_bytes()
