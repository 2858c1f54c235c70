"""Tests of the checks of a model folder: an unusable teacher is one line before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.errors import ShardError
from shards.model_files.tokenizer import TokenizerRules
from teacher_dump.model.declared_model import require_declared_model
from teacher_dump.model.model_folder import load_tokenizer
from teacher_dump.model.teachers import resolve
from tests.teacher_dump.conftest import PADDED_VOCAB
from tests.teacher_dump.helpers import assert_refused, change_weights


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


def put_infinity(folder: Path) -> None:
    def change(tensors: dict[str, Any]) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = -np.inf

    change_weights(folder, change)


def lose_a_tensor(folder: Path) -> None:
    change_weights(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))


def add_an_adapter(folder: Path) -> None:
    change_weights(folder, lambda t: t.update({"model.layers.0.mlp.up_proj.lora_A.weight": np.zeros((2, 64), "f4")}))


def become_an_encoder(folder: Path) -> None:
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    transformers.BertLMHeadModel(transformers.BertConfig(vocab_size=PADDED_VOCAB, **sizes)).save_pretrained(folder)


def set_rope(rope_type: str) -> Any:
    return set_config(rope_parameters={"rope_type": rope_type, "rope_theta": 10_000.0, "factor": 2.0})


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
        (put_infinity, "tensor model.layers.1.mlp.up_proj.weight has 1 values that are infinite"),
        (lose_a_tensor, "1 weights of a LlamaForCausalLM are not in its files (model.layers.1.mlp.up_proj.weight)"),
        (set_config(intermediate_size=96), "has the shape [64, 128], the LlamaForCausalLM of config.json has [64, 96]"),
        (set_config(num_hidden_layers=3), "weights of a LlamaForCausalLM are not in its files (model.layers.2."),
        (set_config(num_hidden_layers=1), "tensors of layers or experts beyond those of config.json (model.layers.1."),
        (add_an_adapter, "found 1 tensors of an adapter (model.layers.0.mlp.up_proj.lora_A.weight)"),
        (set_config(hidden_act="unheard_of"), "its config.json does not give a LlamaForCausalLM (KeyError: "),
        (set_rope("unheard_of"), "its config.json names the RoPE type 'unheard_of', expected one of transformers'"),
        (become_an_encoder, "found an encoder (bert with is_decoder False)"),
        (set_config(model_type="distilbert"), "transformers has no causal language model of type distilbert"),
        (set_config(is_causal=False), "found an encoder (llama with is_causal False)"),
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


@pytest.mark.parametrize(
    ("corpus", "message"),
    [("nowhere.jsonl", "found no such file"), ("nowhere", "found no such file"), ("empty", "found no usable document")],
)
def test_a_missing_corpus_is_reported_before_the_teacher_is_read(
    corpus: str, message: str, teacher: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (teacher / "model.safetensors").unlink()
    assert_refused(teacher, tmp_path / corpus, tmp_path, message)


def test_sound_forms_of_a_folder_are_accepted(teacher: Path) -> None:
    def untie(tensors: dict[str, Any]) -> None:
        tensors["value_head.weight"] = np.zeros(2, "f4")
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(16, "f4")

    set_rope("yarn")(teacher)
    change_weights(teacher, untie)
    assert resolve(str(teacher)).folder == teacher


def test_a_decoder_with_an_unused_setting_of_encoders_is_accepted(tmp_path: Path) -> None:
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.GPTNeoXConfig(vocab_size=PADDED_VOCAB, **sizes)
    transformers.GPTNeoXForCausalLM(config).save_pretrained(tmp_path)
    assert config.is_decoder is False
    require_declared_model(tmp_path, transformers.AutoConfig.from_pretrained(tmp_path))
