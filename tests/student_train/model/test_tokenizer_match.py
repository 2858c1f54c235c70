"""Tests of the comparison of two tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shards.model_files.tokenizer import TokenizerRules
from student_train.model.tokenizer_match import tokenizer_difference


def difference(student: Path, teacher: Path) -> str | None:
    return tokenizer_difference("mine", TokenizerRules.load(student), TokenizerRules.load(teacher))


def edited(source: Path, target: Path, change: Any) -> Path:
    target.mkdir()
    rules = json.loads((source / "tokenizer.json").read_text())
    change(rules)
    (target / "tokenizer.json").write_text(json.dumps(rules))
    return target


def test_a_tokenizer_of_other_pieces_is_told_apart_by_the_first(world: Any, tools: Any, tmp_path: Path) -> None:
    tools.train_tokenizer(tmp_path, text="import os\nprint(os)\n" * 20)
    text = difference(tmp_path, world.shards / "tokenizer")
    assert text is not None
    assert text.startswith("of its ")
    assert "of the shards' 300 it is" in text
    assert "\n" not in text


def test_a_teacher_with_a_few_more_pieces_fits(world: Any, tmp_path: Path) -> None:
    # As TinyLlama's 32,000 ids against Code Llama's 32,016.
    def add(rules: Any) -> None:
        top = max(rules["model"]["vocab"].values())
        a, b = [p for p, i in rules["model"]["vocab"].items() if i in (5, 6)]
        rules["model"]["vocab"][a + b] = top + 1
        rules["model"]["merges"].append([a, b])

    larger = edited(world.shards / "tokenizer", tmp_path / "larger", add)
    assert difference(world.shards / "tokenizer", larger) is None
    assert difference(larger, world.shards / "tokenizer") is None


def test_the_same_pieces_with_other_merges_are_another_tokenizer(world: Any, tmp_path: Path) -> None:
    other = edited(world.shards / "tokenizer", tmp_path / "other", lambda rules: rules["model"]["merges"].reverse())
    assert "other merges" in (difference(other, world.shards / "tokenizer") or "")


def test_far_fewer_pieces_are_another_tokenizer(world: Any, tmp_path: Path) -> None:
    def cut(rules: Any) -> None:
        rules["model"]["vocab"] = {p: i for p, i in rules["model"]["vocab"].items() if i < 270}
        rules["model"]["merges"] = []

    small = edited(world.shards / "tokenizer", tmp_path / "small", cut)
    assert "270 are among the shards' " in (difference(small, world.shards / "tokenizer") or "")
