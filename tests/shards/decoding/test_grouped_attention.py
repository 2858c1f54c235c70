"""Tests of grouped attention: the same answers and outputs as transformers' own attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from shards.decoding import grouped_attention


def _model(attention: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config).double().eval()
    model.set_attn_implementation(attention)
    return model


@pytest.mark.parametrize("padded", [False, True])
def test_prefill_and_decoding_steps_give_the_logits_of_sdpa(padded: bool):
    torch.manual_seed(1)
    ids = torch.randint(64, (3, 9))
    mask = torch.ones(3, 9, dtype=torch.long)
    if padded:
        mask[0, :4] = 0
    logits = []
    for attention in ("sdpa", grouped_attention.register()):
        model = _model(attention)
        with torch.inference_mode():
            prefill = model(input_ids=ids[:, :7], attention_mask=mask[:, :7], use_cache=True)
            steps = [prefill.logits[:, -1]]
            for position in (7, 8):
                step = model(
                    input_ids=ids[:, position : position + 1],
                    attention_mask=mask[:, : position + 1],
                    past_key_values=prefill.past_key_values,
                    use_cache=True,
                )
                steps.append(step.logits[:, -1])
        logits.append(torch.stack(steps))
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-12)


def test_a_decoding_step_does_not_repeat_keys(monkeypatch: pytest.MonkeyPatch):
    heads = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def spy(query: torch.Tensor, key: torch.Tensor, *args: Any, **settings: Any) -> torch.Tensor:
        heads.append(key.shape[1])
        return plain(query, key, *args, **settings)

    model = _model(grouped_attention.register())
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    with torch.inference_mode():
        prefill = model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=True)
        heads.clear()
        model(input_ids=torch.tensor([[4]]), past_key_values=prefill.past_key_values, use_cache=True)
    assert heads == [2, 2]
