"""Tests of decoding with a growing cache: the logits of whole sequences that are read without a cache."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shards.decoding import cached_model, growing_cache
from shards.decoding.cached_model import CachedModel, groups

VOCAB = 64


def _model(**changed: Any) -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    size = {"vocab_size": VOCAB, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "sliding_window": None, "attn_implementation": "sdpa"}
    config = MistralConfig(**size | heads | changed)
    return MistralForCausalLM(config).double().eval()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("together", [100, 8, 1])
@pytest.mark.parametrize("changed", [{}, {"sliding_window": 4}, {"num_key_value_heads": 6}])
def test_steps_give_the_logits_of_whole_sequences(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], together: int, seed: int
) -> None:
    """Prompts of unequal length, one twice, in one group or several; rows finish at random; buffers are full twice."""
    monkeypatch.setattr(growing_cache, "ROOM", 3)
    monkeypatch.setattr(cached_model, "CPU_PREFILL_TOKENS", together)
    draw = random.Random(seed)
    rows = [[draw.randrange(VOCAB) for _ in range(length)] for length in (5, 2, 7)]
    rows.append(list(rows[0]))
    plain, cached = _model(**changed), CachedModel(_model(**changed), vocab_size=VOCAB - 4)
    with torch.inference_mode():
        logits_BV = cached.prefill(rows)
        for step in range(12):
            for row, logits_V in zip(rows, logits_BV, strict=True):
                whole_V = plain(torch.tensor([row])).logits[0, -1, : VOCAB - 4]
                torch.testing.assert_close(logits_V, whole_V.float(), rtol=0, atol=1e-6)
            kept = [place for place in range(len(rows)) if len(rows) == 1 or step < 4 or draw.random() < 0.8]
            kept = kept or [0]
            rows = [[*rows[place], draw.randrange(VOCAB)] for place in kept]
            logits_BV = cached.decode([row[-1] for row in rows], kept)


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40).map(sorted), most=st.integers(1, 100))
def test_groups_hold_every_prompt_once_and_few_tokens(lengths: list[int], most: int) -> None:
    prompts = [[place] * length for place, length in enumerate(lengths)]
    found = list(groups(prompts, most))
    assert [ids for group in found for ids in group] == prompts
    assert all(len(group) == 1 or len(group) * len(group[-1]) <= most for group in found)
    assert all(len(group + after[:1]) * len(after[0]) > most for group, after in pairwise(found))


def test_a_new_batch_knows_nothing_of_the_last_one() -> None:
    cached = CachedModel(_model())
    with torch.inference_mode():
        first = cached.prefill([[1, 2, 3]])
        cached.prefill([[4, 5], [6, 7]])
        assert torch.equal(cached.prefill([[1, 2, 3]]), first)


def test_a_step_copies_no_keys_while_there_is_room() -> None:
    cache = _model()(torch.tensor([[1, 2, 3]]), use_cache=True).past_key_values
    growing_cache.make_room(cache)
    keys = values = torch.ones(1, 2, 1, 8, dtype=torch.float64)
    places = [cache.layers[0].update(keys, values)[0].data_ptr() for _ in range(2 * growing_cache.ROOM)]
    assert len(set(places)) == 2
    assert cache.get_seq_length() == 3 + 2 * growing_cache.ROOM


def test_grown_keys_and_values_are_those_of_transformers_to_the_bit() -> None:
    caches = [_model()(torch.tensor([[1, 2, 3], [4, 5, 6]]), use_cache=True).past_key_values for _ in range(2)]
    growing_cache.make_room(caches[1])
    torch.manual_seed(1)
    for step in range(5):
        new = torch.randn(2, 2, 2, 8, dtype=torch.float64)
        kept = torch.tensor([1, 0] if step == 3 else [0, 1])
        found = []
        for cache in caches:
            found.append(cache.layers[1].update(new, -new))
            cache.batch_select_indices(kept)
            if step == 2:
                cache.reorder_cache(torch.tensor([1, 0]))
        for plain, grown in zip(*found, strict=True):
            assert torch.equal(plain, grown)
