"""Tests of cutting layers: each kept layer is unchanged, or the cut is refused with the difference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from student_train.errors import StudentError
from student_train.pruning.layer_config import recut
from student_train.pruning.shorten import shorten

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16}


def config_of(kind: str, *, layers: int, **settings: Any) -> Any:
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
    return CONFIG_MAPPING[kind](**{**SIZES, **ids, **settings}, num_hidden_layers=layers)


def model_of(kind: str, *, layers: int, **settings: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config_of(kind, layers=layers, **settings)).eval()


def with_layers_skipped(model: Any, kept: list[int], ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of `model` where layers that are not kept return what they are given."""
    for i, layer in enumerate(model.model.layers):
        if i not in kept:
            layer.forward = lambda hidden_states, *_args, **_named: hidden_states
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def test_layers_without_rope_stay_without_it() -> None:
    model = model_of("smollm3", layers=6, no_rope_layer_interval=2)
    assert model.config.no_rope_layers == [1, 0, 1, 0, 1, 0]
    short = shorten(model, [0, 3, 5])
    assert short.config.no_rope_layers == [1, 0, 0]
    ids = torch.randint(8, 64, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = short(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(found, with_layers_skipped(model, [0, 3, 5], ids))


def test_a_saved_short_model_loads_as_the_same_model(tmp_path: Any) -> None:
    model = model_of("gemma3_text", layers=6, head_dim=8, sliding_window=8)
    short = shorten(model, [0, 2, 5])
    short.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.randint(8, 64, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = with_layers_skipped(model, [0, 2, 5], ids)
        torch.testing.assert_close(again(input_ids=ids, use_cache=False).logits, expected)


@pytest.mark.parametrize(
    ("kind", "settings", "kept", "expected"),
    [
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 3}, [0, 2, 4, 5], {"max_window_layers": 2}),
        ("qwen3_moe", {"decoder_sparse_step": 2, "mlp_only_layers": [1]}, [0, 1, 3], {"mlp_only_layers": [0, 1]}),
        (
            "bamba",
            {"attn_layer_indices": [1, 4], **MAMBA},
            [0, 4, 5],
            {"attn_layer_indices": [1]},
        ),
        ("jamba", {"attn_layer_period": 3, "attn_layer_offset": 1}, [0, 4], {"attn_layer_period": 2}),
        ("deepseek_v3", {"first_k_dense_replace": 3}, [0, 2, 4], {"first_k_dense_replace": 2}),
        ("recurrent_gemma", {}, [1, 2, 4, 5], {"block_types": ["recurrent", "attention", "recurrent", "attention"]}),
        ("llama4_text", {"interleave_moe_layer_step": 2}, [0, 1, 5], {"moe_layers": [1, 2]}),
        ("cohere2", {}, [2, 3], {"layer_types": ["sliding_attention", "full_attention"]}),
        ("gemma3n_text", {"num_kv_shared_layers": 2}, [0, 3, 5], {"num_kv_shared_layers": 1}),
    ],
)
def test_per_layer_settings_follow_their_layers(
    kind: str, settings: dict[str, Any], kept: list[int], expected: dict[str, Any]
) -> None:
    types = {"layer_types": ["sliding_attention", "full_attention"] * 3} if kind == "gemma3n_text" else {}
    config = config_of(kind, layers=6, **settings, **types)
    recut(config, kept)
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.num_hidden_layers == len(kept)


def test_a_period_that_the_kept_layers_do_not_have_is_refused_by_name() -> None:
    config = config_of("jamba", layers=8, attn_layer_period=4, attn_layer_offset=0)
    with pytest.raises(StudentError, match=r"attn_layer_period 4, attn_layer_offset 0.*layers 0, 4, 5, 6"):
        recut(config, [0, 4, 5, 6])


def test_a_setting_that_depends_on_the_layers_number_is_refused_with_the_difference() -> None:
    # Its layers weigh two attention maps by a number that is computed from the layer's index and saved nowhere.
    model = model_of("diffllama", layers=4)
    with pytest.raises(
        StudentError, match=r"found layer 2 with self_attn.lambda_init 0.35\d* in place of 0.47"
    ) as caught:
        shorten(model, [0, 2, 3])
    assert "\n" not in str(caught.value)


def test_a_cut_that_changes_what_the_model_computes_is_refused_with_the_difference(monkeypatch: Any) -> None:
    # GPT-2 can scale attention by the layer's number. Suppose that no attribute of the layer showed it.
    monkeypatch.setattr("student_train.pruning.shorten._require_same_layers", lambda *_: None)
    model = model_of("gpt2", layers=4, scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(StudentError, match=r"found hidden states that differ by \d.\de-\d\d of the largest"):
        shorten(model, [0, 2, 3])


def test_a_decoder_whose_layers_the_configuration_does_not_count_is_one_line() -> None:
    # BART's num_hidden_layers counts the encoder's layers; as a causal language model it has only a decoder.
    config = CONFIG_MAPPING["bart"](
        vocab_size=64,
        d_model=32,
        encoder_layers=2,
        decoder_layers=4,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
    )
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(StudentError, match=r"found no list of 2 layers in a BartForCausalLM"):
        shorten(model, [0, 1])
