"""Random models of four layers, one for each architecture of the survey."""

from __future__ import annotations

from typing import Any

import torch

LAYERS = 4
VOCAB = 64
_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "sliding_window": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
    "initializer_range": 0.3,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
    "state_size": 8,
    "mamba_d_state": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_LOCAL = ["sliding_attention", "full_attention"] * 2
_LINEAR = ["linear_attention", "linear_attention", "full_attention", "linear_attention"]
_CONV = ["conv", "full_attention", "conv", "full_attention"]
_MLA = {"num_key_value_heads": 4}
_GPT = {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 256}

# Settings of each architecture beside the sizes that its configuration class has. A variant follows after ":".
MODELS: dict[str, dict[str, Any]] = {
    # Dense, one kind of attention
    "llama": {},
    "llama:longrope": {
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 32,
        }
    },
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "phi": {},
    "phi3": {},
    "olmo": {},
    "olmo2": {},
    "starcoder2": {"sliding_window": None},
    "stablelm": {},
    "glm": {},
    "glm4": {},
    "helium": {},
    "arcee": {},
    "apertus": {},
    "seed_oss": {},
    "ernie4_5": {},
    "hunyuan_v1_dense": {},
    "nemotron": {},
    "persimmon": {},
    "bitnet": {},
    "diffllama": {},
    "nanochat": {},
    "gpt2": _GPT,
    "gpt2:layer-scaled": {**_GPT, "scale_attn_by_inverse_layer_idx": True},
    "gpt_bigcode": _GPT,
    "gptj": {**_GPT, "rotary_dim": 8},
    "codegen": {**_GPT, "rotary_dim": 8},
    "gpt_neox": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "biogpt": {},
    "xglm": {"d_model": 32, "ffn_dim": 48, "num_layers": LAYERS, "attention_heads": 4},
    "openai-gpt": _GPT,
    "ctrl": {**_GPT, "dff": 48},
    # Positions by a bias on attention
    "bloom": {"n_layer": LAYERS, "n_head": 4},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": LAYERS, "max_seq_len": 256},
    "falcon": {},
    "falcon:alibi": {"alibi": True, "new_decoder_architecture": False},
    # Scaled or capped logits
    "granite": {"logits_scaling": 7.0, "embedding_multiplier": 12.0},
    "cohere": {"logit_scale": 0.0625},
    "minicpm3": _MLA,
    "vaultgemma": {"final_logit_softcapping": 2.0},
    # Local attention
    "mistral": {},
    "ministral": {"layer_types": _LOCAL},
    "qwen2:sliding": {"use_sliding_window": True, "max_window_layers": 2},
    "gemma2": {"layer_types": _LOCAL, "final_logit_softcapping": 2.0},
    "gemma3_text": {"layer_types": _LOCAL},
    "gemma3n_text": {
        "layer_types": _LOCAL,
        "num_kv_shared_layers": 0,
        "vocab_size_per_layer_input": VOCAB,
        "hidden_size_per_layer_input": 8,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
    },
    "gemma3n_text:shared-kv": {
        "layer_types": _LOCAL,
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": VOCAB,
        "hidden_size_per_layer_input": 8,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
    },
    "gemma4_text": {
        "layer_types": _LOCAL,
        "vocab_size_per_layer_input": VOCAB,
        "hidden_size_per_layer_input": 8,
        "global_head_dim": 8,
    },
    "cohere2": {"layer_types": _LOCAL},
    "olmo3": {"layer_types": _LOCAL},
    "exaone4": {"layer_types": _LOCAL},
    "smollm3": {"no_rope_layers": [1, 0, 1, 0]},
    "gpt_neo": {
        "num_layers": LAYERS,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 2]],
        "window_size": 16,
    },
    "modernbert-decoder": {"pad_token_id": 0, "cls_token_id": 0, "sep_token_id": 0, "local_attention": 16},
    # Experts
    "mixtral": {"sliding_window": None},
    "qwen2_moe": {"decoder_sparse_step": 2},
    "qwen3_moe": {"mlp_only_layers": [1]},
    "olmoe": {},
    "granitemoe": {"logits_scaling": 7.0},
    "phimoe": {"sliding_window": None},
    "gpt_oss": {"layer_types": _LOCAL},
    "llama4_text": {"attention_chunk_size": 16, "intermediate_size_mlp": 48},
    "deepseek_v2": {**_MLA, "first_k_dense_replace": 1},
    "deepseek_v3": {**_MLA, "first_k_dense_replace": 1},
    "glm4_moe": {"first_k_dense_replace": 1},
    "ernie4_5_moe": {"moe_layer_start_index": 1, "moe_layer_interval": 1},
    "dots1": {"n_shared_experts": 1, "first_k_dense_replace": 1, "layer_types": ["full_attention"] * LAYERS},
    "minimax_m2": {},
    "jetmoe": {"kv_channels": 8, "num_layers": LAYERS},
    # Convolutions and recurrent state
    "lfm2": {"layer_types": _CONV},
    "lfm2_moe": {"layer_types": _CONV, "num_dense_layers": 1},
    "mamba": {},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8},
    "falcon_mamba": {},
    "rwkv": {},
    "xlstm": {"num_heads": 4, "num_blocks": LAYERS},
    "recurrent_gemma": {"attention_window_size": 16, "block_types": ["recurrent", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "bamba": {"attn_layer_indices": [1, 3], "mamba_chunk_size": 8},
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "n_mamba_heads": 8,
        "mamba_ngroups": 1,
        "chunk_size": 8,
    },
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_chunk_size": 8, "lm_head_multiplier": 0.5},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "full_attention", "linear_attention", "mlp"],
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 8,
    },
    "granitemoehybrid": {
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "shared_intermediate_size": 48,
        "mamba_chunk_size": 8,
    },
    "qwen3_next": {"layer_types": _LINEAR},
    "qwen3_5_text": {"layer_types": _LINEAR},
    "olmo_hybrid": {"layer_types": _LINEAR},
    "minimax": {"layer_types": _LINEAR},
    # Several modalities: the text part
    "gemma3": {},
    # Not causal
    "bert": {"is_decoder": False},
    "xlnet": {"d_model": 32, "n_layer": LAYERS, "n_head": 4, "d_inner": 48},
}


def build(name: str, **sizes: Any) -> Any:
    """Return the model of `MODELS` called `name`, float32, with the same weights each time.

    Args:
        name: Key of `MODELS`.
        **sizes: Sizes in place of the usual ones, see `config_of`.
    """
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config_of(name, **sizes), dtype=torch.float32).eval()


def config_of(name: str, **sizes: Any) -> Any:
    """Return the configuration of the model called `name`.

    Args:
        name: Key of `MODELS`.
        **sizes: Sizes in place of the usual ones, where the configuration knows them and `MODELS` holds no others.
    """
    from transformers import CONFIG_MAPPING

    kind = name.split(":")[0]
    if kind == "gemma3":
        return _gemma3(sizes)
    known = CONFIG_MAPPING[kind].__dataclass_fields__
    usual = {key: value for key, value in {**_SIZES, **sizes}.items() if key in known}
    replaced = {*_GPT, "rope_parameters"}
    own = {key: sizes.get(key, value) if key in replaced else value for key, value in MODELS[name].items()}
    return CONFIG_MAPPING[kind](**{**usual, **own})


def _gemma3(sizes: dict[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING

    known = CONFIG_MAPPING["gemma3_text"].__dataclass_fields__
    usual = {key: value for key, value in {**_SIZES, **sizes}.items() if key in known}
    return CONFIG_MAPPING["gemma3"](
        text_config={**usual, "layer_types": _LOCAL},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        mm_tokens_per_image=4,
    )
