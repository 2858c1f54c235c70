"""Tests of training with rounded weights, and of the quantised copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from shards.format.relations import RelationLayout
from student_train.config import Config
from student_train.errors import TrainError
from student_train.evaluation.evaluate import evaluate
from student_train.evaluation.request import EvaluationRequest
from student_train.model.quantization import GROUP_SIZE, add_rounding, rounding
from student_train.outputs.quantised_export import export_quantised
from student_train.training.trainer import run
from tests.student_train.conftest import llama
from tests.student_train.responses import VOCAB, make_world
from tests.student_train.training.test_trainer import toy_config

IDS = torch.arange(40).reshape(2, 20)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(IDS).logits)


def rounded(weight_OI: torch.Tensor, kind: str) -> torch.Tensor:
    """Return a matrix rounded by the definition: the largest absolute value of a group is the end of the range."""
    bits, size = (8, weight_OI.shape[1]) if kind == "int8" else (4, GROUP_SIZE)
    groups_OGS = weight_OI.reshape(weight_OI.shape[0], -1, size)
    ends_OG1 = groups_OGS.abs().amax(-1, keepdim=True)
    scale_OG1 = ends_OG1 / ((2**bits - 1) / 2)
    steps_OGS = (groups_OGS / scale_OG1).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (steps_OGS * scale_OG1).reshape(weight_OI.shape)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_rounding_while_training_is_that_of_the_copy(kind: str, tmp_path: Path) -> None:
    model = llama(vocab=60)
    model.save_pretrained(tmp_path)
    plain = logits(model)
    names = list(model.state_dict())
    matrix = model.model.layers[0].mlp.down_proj.weight.detach().clone()
    add_rounding(model, kind)
    assert torch.equal(logits(model), plain)
    assert list(model.state_dict()) == names
    with rounding(model, kind):
        trained = logits(model)
        layer = model.model.layers[0].mlp.down_proj
        differs = (layer.weight_fake_quantizer(layer.weight) - rounded(matrix, kind)).abs() > 1e-6
        assert float(differs.float().mean()) < 0.01  # values between two steps, by the order of multiplications
    assert torch.equal(logits(model), plain)
    copy = AutoModelForCausalLM.from_pretrained(export_quantised(tmp_path, kind))
    assert not torch.equal(trained, plain)
    assert torch.allclose(logits(copy), trained, atol=1e-5)


def test_gradients_pass_through_the_rounding() -> None:
    model = llama(vocab=60)
    add_rounding(model, "int4")
    with rounding(model, "int4"):
        model(IDS, labels=IDS).loss.backward()
    weights = [layer.mlp.up_proj.weight for layer in model.model.layers]
    assert all(float(weight.grad.abs().sum()) > 0 for weight in weights)


def test_a_model_whose_rows_are_no_whole_groups_is_refused() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=60, **settings))
    with pytest.raises(TrainError, match=r"quantize int4: found .* with 24 inputs .* use --quantize int8"):
        add_rounding(model, "int4")


def test_adapters_are_refused() -> None:
    with pytest.raises(TrainError, match="quantize with lora-rank"):
        Config(shards=("s",), student="x", out="o", quantize="int8", lora_rank=4)


@pytest.mark.slow
def test_a_run_writes_its_student_and_a_copy_whose_figures_are_those_of_its_folder(
    world: Any, at_home: Any, tmp_path: Path
) -> None:
    config = toy_config(world, tmp_path / "o", quantize="int8", control=False)
    run(config, command=[])
    record = json.loads((tmp_path / "o" / "run.json").read_text())
    quantised = record["quantized"]
    assert quantised["bytes"] < quantised["float_bytes"]
    assert quantised["held_out"]["kl"]["mean"] == pytest.approx(record["held_out"]["after"]["kl"]["mean"], rel=0.05)
    request = EvaluationRequest(evaluate=str(tmp_path / "o" / "int8"), vs=str(tmp_path / "o"))
    found = evaluate(config, request, command=[], log=lambda line: None)
    first, second = (model["measures"]["kl"]["mean"] for model in found["models"])
    assert first == pytest.approx(quantised["held_out"]["kl"]["mean"])
    assert second == pytest.approx(record["held_out"]["after"]["kl"]["mean"])
    assert first != second


@pytest.mark.slow
def test_the_copy_is_scored_on_caches_that_lack_what_the_loss_needs(tools: Any, tmp_path: Path) -> None:
    """The responses have no relations, and the documents have no context that a template can render."""
    chats = make_world(tools, tmp_path / "w")
    layout = RelationLayout(layer=3, heads=4, widths=(8, 4, 4), dims=8, seed=0)
    rows = [
        tools.with_relations(row, layout, tools.layer_vectors(chats.model, row.tokens, 3))
        for row in tools.teacher_rows(chats.model, documents=8, vocab=VOCAB, seed=1)
    ]
    documents = tools.write_cache(tmp_path / "d", rows, chats.teacher_dir, vocab=VOCAB, version=2, relations=layout)
    losses = {"relations_weight": 1.0, "template": "own", "quantize": "int8"}
    settings = {"student": str(chats.teacher_dir), "student_layers": 0, "held_out": 0.4, "max_steps": 2}
    config = toy_config(chats, tmp_path / "o", shards=(str(chats.shards), str(documents)), **losses, **settings)
    run(config, command=[])
    record = json.loads((tmp_path / "o" / "run.json").read_text())
    for copy, student in zip(record["quantized"]["caches"], record["held_out"]["caches"], strict=True):
        assert copy["bits_per_byte"]["mean"] == pytest.approx(student["after"]["bits_per_byte"]["mean"], rel=0.05)
