"""Tests of the checks of a model folder: an unusable teacher is one line before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.errors import ShardError
from shards.model_files.tokenizer import TokenizerRules
from teacher_dump.model.model_folder import load_tokenizer, strip_paths
from tests.teacher_dump.helpers import assert_refused, change_weights


def test_only_paths_are_removed_from_a_tokenizer_file() -> None:
    raw = b'{"bos_token": "/", "chat_template": "/x", "name_or_path": "org/name", "model_max_length": 8}'
    assert strip_paths(raw) == raw
    assert json.loads(strip_paths(b'{"vocab_file": "/home/x/v", "eos_token": "e"}')) == {"eos_token": "e"}
    assert strip_paths(b"not json") == b"not json"


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [("BPE", "dropout", 0.1), ("BPE", "dropout", 1e-9), ("Unigram", "alpha", 0.1), ("Unigram", "nbest_size", -1)],
)
def test_a_tokenizer_that_samples_is_refused(
    kind: str, field: str, value: float, teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    rules = json.loads((teacher / "tokenizer.json").read_text())
    rules["model"][field] = value
    (teacher / "tokenizer.json").write_text(json.dumps(rules))
    with pytest.raises(ShardError, match=rf"the tokenizer samples \({field} .* expected a function of the text"):
        TokenizerRules.load(teacher).fingerprint()
    if kind == "BPE":
        message = "it samples" if value == 0.1 else "the tokenizer samples"
        assert_refused(teacher, corpus_folder, tmp_path, message)


def test_a_tokenizer_that_samples_without_saying_so_is_found_by_asking_twice(
    teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    class Sampling:
        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, *_: Any, **__: Any) -> dict[str, list[int]]:
            self.calls += 1
            return {"input_ids": [self.calls // 10]}

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: Sampling())
    with pytest.raises(ShardError, match="other ids for the same text each time"):
        load_tokenizer(teacher)


def cut(folder: Path) -> None:
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[:-1000])


def flip_header(folder: Path) -> None:
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[8] ^= 0xFF
    (folder / "model.safetensors").write_bytes(raw)


def lose_a_shard(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def put_nan(folder: Path) -> None:
    def change(tensors: dict[str, Any]) -> None:
        tensors["model.norm.weight"][3] = np.nan

    change_weights(folder, change)


def set_config(**values: Any) -> Any:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **values}))

    return change


def remote_tokenizer(folder: Path) -> None:
    config = {"tokenizer_class": "Odd", "auto_map": {"AutoTokenizer": ["odd.Odd", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "the file is cut"),
        (flip_header, "without a safetensors header"),
        (lose_a_shard, "found no model-00002-of-00002.safetensors, which model.safetensors.index.json lists"),
        (put_nan, "tensor model.norm.weight has 1 values that are NaN"),
        (set_config(vocab_size=300), "ids beyond the 300 of config.json"),
        (set_config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "are quantised, and"),
        (set_config(quantization_config={"quant_method": "odd"}), "Unknown quantization type"),
        (set_config(model_type="unheard_of"), "model type `unheard_of`"),
        (set_config(model_type="t5", architectures=["T5ForConditionalGeneration"]), "found an encoder-decoder (t5)"),
        (set_config(model_type="odd", auto_map={"AutoConfig": "odd.Odd"}), "does not load"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "no readable config.json"),
        (lambda folder: (folder / "config.json").unlink(), "no readable config.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "found no JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), "found no *.safetensors"),
    ],
)
def test_a_teacher_that_cannot_be_used_is_one_line_before_anything_is_written(
    damage: Any, message: str, teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    damage(teacher)
    assert_refused(teacher, corpus_folder, tmp_path, message)


def test_a_tokenizer_with_code_of_its_own_is_refused_without_asking(
    teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    remote_tokenizer(teacher)
    assert_refused(teacher, corpus_folder, tmp_path, "tokenizer does not load")
