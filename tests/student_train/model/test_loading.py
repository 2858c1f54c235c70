"""Tests of loading a student with the requested layers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from student_train.errors import StudentError
from student_train.pruning.layer_choice import evenly_spaced_layers
from tests.student_train.model.conftest import load


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


@pytest.mark.parametrize("kind", ["qwen2_vl", "t5", "clip"])
def test_a_model_that_is_no_causal_language_model_is_one_line(world: Any, tmp_path: Path, kind: str) -> None:
    from transformers import CONFIG_MAPPING

    CONFIG_MAPPING[kind]().save_pretrained(tmp_path)
    with pytest.raises(StudentError, match=r"does not load .* expected a transformers folder of a causal") as caught:
        load(world, str(tmp_path))
    assert "\n" not in str(caught.value)
    assert "issue" not in str(caught.value)
