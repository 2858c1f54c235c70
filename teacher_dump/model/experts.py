"""The experts of a mixture, as its config.json states them, and the weights that a token does not use.

A router chooses some experts of each layer for a token. Shared experts, attention and all else are used by every token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NUM_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_NUM_USED = ("num_experts_per_tok", "experts_per_token", "moe_k", "moe_topk", "top_k_experts")
_WIDTH = ("moe_intermediate_size", "intermediate_size")
"""Names of the numbers in the configs of transformers' classes. The first that is there counts."""
_STEPS = ("decoder_sparse_step", "moe_layer_interval", "interleave_moe_layer_step")
"""Settings by which each n-th layer has experts: of Qwen, ERNIE and Llama 4."""
_UNGATED = "nemotron_h"
"""Model type whose experts have two matrices: up and down, without a gate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertShape:
    """The experts that a router chooses from."""

    num_experts: int
    """Of each layer that has experts."""
    num_used: int
    """Experts of a layer that a token uses."""
    layers: int
    """Layers that have experts."""
    matrices: int
    """Matrices of an expert."""
    hidden_size: int
    width: int
    """Intermediate size of an expert."""

    @property
    def unused_weights(self) -> int:
        """Weights that a token does not use."""
        unused = self.num_experts - self.num_used
        return self.layers * unused * self.matrices * self.hidden_size * self.width


def num_experts(config: Mapping[str, Any]) -> int:
    """Return the number of experts that a layer's router chooses from, 0 for a dense model.

    Args:
        config: Content of a config.json, of its text part.
    """
    count = _number(config, _NUM_EXPERTS) or 0
    return count if count > 1 and _num_expert_layers(config) else 0


def expert_shape(config: Mapping[str, Any]) -> ExpertShape | None:
    """Return the experts of a mixture, None for a dense model and where the config does not tell.

    Args:
        config: Content of a config.json, of its text part.
    """
    count, used, width = num_experts(config), _number(config, _NUM_USED), _number(config, _WIDTH)
    hidden_size = _number(config, ("moe_latent_size", "hidden_size"))
    if not count or used is None or width is None or hidden_size is None:
        return None
    return ExpertShape(
        num_experts=count,
        num_used=min(used, count),
        layers=_num_expert_layers(config),
        matrices=2 if config.get("model_type") == _UNGATED else 3,
        hidden_size=hidden_size,
        width=width,
    )


def _number(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """Return the first of these numbers that a config has; None if there is none, or it differs by layer."""
    value = next((config[name] for name in names if config.get(name) is not None), None)
    return value if type(value) is int else None


def _num_expert_layers(config: Mapping[str, Any]) -> int:
    """Return the number of layers with experts, by the settings of the classes that have some layers without."""
    if config.get("enable_moe_block") is False:  # Gemma 4
        return 0
    if config.get("model_type") == _UNGATED:
        kinds = config.get("layers_block_type") or config.get("hybrid_override_pattern") or ()
        return sum(kind in ("moe", "E") for kind in kinds)
    if kinds := config.get("mlp_layer_types"):
        return sum(kind == "sparse" for kind in kinds)
    if isinstance(config.get("moe_layers"), list):  # Llama 4
        return len(config["moe_layers"])
    layers: int = config["num_hidden_layers"]
    return sum(_has_experts(config, layer, layers) for layer in range(layers))


def _has_experts(config: Mapping[str, Any], layer: int, layers: int) -> bool:
    if period := config.get("expert_layer_period"):  # Jamba
        return bool(layer % period == config.get("expert_layer_offset", 0))
    if layer in (config.get("mlp_only_layers") or ()):  # Qwen
        return False
    first = config.get("first_k_dense_replace") or config.get("num_dense_layers") or 0  # DeepSeek, GLM; LFM 2
    first = max(first, config.get("moe_layer_start_index") or 0)  # ERNIE
    last = config.get("moe_layer_end_index")
    if not first <= layer <= (layers - 1 if last in (None, -1) else last):
        return False
    frequency = config.get("moe_layer_freq") or 1  # DeepSeek
    if isinstance(frequency, list):
        return layer < len(frequency) and bool(frequency[layer])
    steps = [config.get(name) or 1 for name in _STEPS]
    return bool(layer % frequency == 0 and all((layer + 1) % step == 0 for step in steps))
