"""Tests of caches that hold more than keys and values: rows are selected and joined whole, or the model is refused."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer

from benchmarks.tiny_models import build
from shards.decoding import cached_model
from shards.decoding.cache_rows import UnknownCacheError, is_joinable, is_recurrent, require_known
from shards.decoding.cached_model import CachedModel

slow = pytest.mark.slow


def _alone(model: Any, rows: list[list[int]], prompt_tokens: list[int]) -> torch.Tensor:
    """Return the next-token logits of rows that transformers decodes one by one, token by token after the prompt."""
    logits = []
    has_positions = "position_ids" in inspect.signature(model.forward).parameters
    for ids, length in zip(rows, prompt_tokens, strict=True):
        output = model(input_ids=torch.tensor([ids[:length]]), use_cache=True)
        for place in range(length, len(ids)):
            output = model(
                input_ids=torch.tensor([[ids[place]]]),
                attention_mask=torch.ones(1, place + 1, dtype=torch.long),
                past_key_values=output.past_key_values,
                use_cache=True,
                **({"position_ids": torch.tensor([[place]])} if has_positions else {}),
            )
        logits.append(output.logits[0, -1])
    return torch.stack(logits)


HYBRID = ("lfm2_moe", "jamba", "bamba", "zamba2", "nemotron_h", "granitemoehybrid", "qwen3_next", "qwen3_5_text")


@pytest.mark.parametrize(
    ("name", "together"),
    [
        ("lfm2", 100),
        ("falcon_h1", 7),
        *(pytest.param(name, 100, marks=slow) for name in (*HYBRID, "falcon_h1", "olmo_hybrid")),
    ],
)
def test_rows_of_a_hybrid_model_are_those_of_each_row_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, together: int
) -> None:
    """Prompts of unequal length, one twice; a row finishes, and the others change their places."""
    monkeypatch.setattr(cached_model, "CPU_PREFILL_TOKENS", together)
    plain, cached = build(name), CachedModel(build(name))
    rows = [[5, 9, 3, 7, 11, 2, 8], [4, 6, 1], [4, 6, 1], [7, 8, 9], [7, 8, 9, 10, 11]]
    lengths = list(map(len, rows))
    with torch.inference_mode():
        logits_BV = cached.prefill(rows)
        for step in range(5):
            torch.testing.assert_close(logits_BV, _alone(plain, rows, lengths), rtol=0, atol=2e-4)
            kept = [4, 1, 0, 3] if step == 2 else list(range(len(rows)))
            rows = [[*rows[place], 13 + 5 * place + step] for place in kept]
            lengths = [lengths[place] for place in kept]
            logits_BV = cached.decode([row[-1] for row in rows], kept)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("mamba", "MambaForCausalLM"),
        ("minimax", "MiniMaxForCausalLM"),
        ("recurrent_gemma", "RecurrentGemmaForCausalLM"),
        *(pytest.param(name, "", marks=slow) for name in ("mamba2", "falcon_mamba", "rwkv", "xlstm")),
        *(pytest.param(name, "", marks=slow) for name in ("openai-gpt", "xlnet")),
    ],
)
def test_a_model_whose_state_is_elsewhere_is_refused_at_load(name: str, model: str) -> None:
    message = f"{model}: found states outside of past_key_values, expected a DynamicCache of .* use --engine vllm"
    with pytest.raises(UnknownCacheError, match=message) as caught:
        CachedModel(build(name))
    assert "\n" not in str(caught.value)


def test_a_cache_that_the_config_does_not_name_is_refused_when_it_appears(monkeypatch: pytest.MonkeyPatch) -> None:
    cached = CachedModel(build("llama"))
    monkeypatch.setattr("transformers.models.llama.modeling_llama.DynamicCache", _OtherCache)
    with pytest.raises(UnknownCacheError, match="LlamaForCausalLM: found a _OtherCache, expected"):
        cached.prefill([[1, 2], [3]])


class _OtherCache(DynamicCache):  # type: ignore[misc]  # transformers is not typed
    """A cache that may keep states beside its layers."""


class _OtherLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """A layer that may keep more than its base class does."""


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([DynamicLayer(), _OtherLayer()], "found cache layers _OtherLayer, expected"),
        ([LinearAttentionLayer(), DynamicSlidingWindowLayer(sliding_window=4)], "recurrent states beside sliding"),
        ([LinearAttentionLayer(), DynamicLayer()], None),
        ([DynamicSlidingWindowLayer(sliding_window=4), DynamicLayer()], None),
    ],
)
def test_layers_are_known_by_their_class_alone(layers: list[Any], found: str | None) -> None:
    cache = DynamicCache()
    cache.layers = layers
    if found is None:
        require_known(cache, name="model")
        assert is_recurrent(cache) == is_joinable(cache)
    else:
        with pytest.raises(UnknownCacheError, match=found):
            require_known(cache, name="model")
