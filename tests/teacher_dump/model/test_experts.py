"""Tests of the weights that a token uses, against published models and against the weights of small ones."""

from __future__ import annotations

from typing import Any

import pytest

from teacher_dump.model.experts import expert_shape, num_experts
from teacher_dump.model.registry import ModelShape

QWEN3 = {
    "decoder_sparse_step": 1,
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "mlp_only_layers": [],
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "vocab_size": 151_936,
}
"""config.json of Qwen3-30B-A3B, as far as it matters."""
MIXTRAL = {
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_local_experts": 8,
    "vocab_size": 32_000,
}
OLMOE = {
    "hidden_size": 2048,
    "intermediate_size": 1024,
    "num_attention_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 16,
    "vocab_size": 50_304,
}
QWEN_SHARED = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "moe_intermediate_size": 1408,
    "num_attention_heads": 16,
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "shared_expert_intermediate_size": 5632,
    "vocab_size": 151_936,
}
"""Qwen1.5-MoE-A2.7B: its shared experts are in use for every token."""


@pytest.mark.parametrize(
    ("config", "parameters", "published"),
    [
        (QWEN3, 30_532_122_624, 3.3e9),
        (MIXTRAL, 46_702_792_704, 12.9e9),
        (OLMOE, 6_919_161_856, 1.3e9),
        (QWEN_SHARED, 14_315_784_192, 2.7e9),
    ],
)
def test_active_weights_are_those_that_are_published(config: dict[str, Any], parameters: int, published: float) -> None:
    unused = ModelShape.from_config(config).unused_weights(parameters)
    assert unused is not None
    assert parameters - unused == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(
    ("more", "layers"),
    [
        ({}, 48),
        ({"decoder_sparse_step": 2}, 24),
        ({"mlp_only_layers": [0, 5]}, 46),
        ({"first_k_dense_replace": 3}, 45),
        ({"moe_layer_freq": [0, *([1] * 47)]}, 47),
        ({"num_dense_layers": 2}, 46),
        ({"moe_layer_start_index": 1, "moe_layer_end_index": -1, "moe_layer_interval": 1}, 47),
        ({"moe_layers": [1, 3]}, 2),
        ({"interleave_moe_layer_step": 2}, 24),
        ({"expert_layer_period": 2, "expert_layer_offset": 1}, 24),
        ({"mlp_layer_types": ["dense", "sparse", "sparse"]}, 2),
        ({"model_type": "nemotron_h", "hybrid_override_pattern": "M-E*E"}, 2),
    ],
)
def test_layers_without_experts_are_left_out(more: dict[str, Any], layers: int) -> None:
    experts = expert_shape({**QWEN3, **more})
    assert experts is not None
    assert experts.layers == layers


@pytest.mark.parametrize(
    "dense",
    [
        {"num_experts": None},
        {"num_experts": 1},
        {"num_experts": 0},
        {"enable_moe_block": False},
        {"model_type": "nemotron_h", "hybrid_override_pattern": "M-*-"},
    ],
)
def test_a_dense_model_uses_all_weights(dense: dict[str, Any]) -> None:
    config = {**QWEN3, **dense}
    assert (num_experts(config), expert_shape(config)) == (0, None)
    assert ModelShape.from_config(config).unused_weights(10) == 0


@pytest.mark.parametrize(
    "unknown", [{"num_experts_per_tok": None}, {"num_experts_per_tok": [8, 4]}, {"moe_intermediate_size": 10**9}]
)
def test_a_config_that_does_not_tell_is_no_dense_model(unknown: dict[str, Any]) -> None:
    assert ModelShape.from_config({**QWEN3, **unknown}).unused_weights(30_532_122_624) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "phimoe", "gpt_oss", "llama4_text", "minimax_m2"),
        *("deepseek_v2", "deepseek_v3", "glm4_moe", "ernie4_5_moe", "dots1", "lfm2_moe", "jamba", "granitemoehybrid"),
        *("qwen3_next", "minimax"),
    ],
)
def test_unused_weights_are_those_of_the_model(name: str) -> None:
    from benchmarks.tiny_models import build

    model = build(name)
    experts = sum(
        weight.numel() for path, weight in model.named_parameters() if ".experts." in path and "bias" not in path
    )
    shape = expert_shape(model.config.to_dict())
    assert shape is not None
    assert shape.unused_weights == experts * (shape.num_experts - shape.num_used) // shape.num_experts
