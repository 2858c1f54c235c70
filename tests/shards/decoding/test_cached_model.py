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
from shards.decoding.cache_rows import UnknownCacheError
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


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40).map(sorted),
    most=st.integers(1, 100),
    equal=st.booleans(),
)
def test_groups_hold_every_prompt_once_and_few_tokens(lengths: list[int], most: int, equal: bool) -> None:
    prompts = [[place] * length for place, length in enumerate(lengths)]
    found = list(groups(prompts, most, equal=equal))
    assert [ids for group in found for ids in group] == prompts
    assert all(len(group) == 1 or len(group) * len(group[-1]) <= most for group in found)
    if equal:
        assert all(len(group[0]) == len(group[-1]) for group in found)
        found = [group for group in found if len(group[0]) == len(found[0][0])]
    assert all(len([*group, after[0]]) * len(after[0]) > most for group, after in pairwise(found))


def test_attention_with_a_soft_cap_keeps_it() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    size = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "query_pre_attn_scalar": 1, "initializer_range": 0.4}
    model = Gemma2ForCausalLM(Gemma2Config(**size, **heads, attn_logit_softcapping=2.0)).eval()
    row = list(range(20))
    with torch.inference_mode():
        logits_BV = CachedModel(model).prefill([row])
        model.set_attn_implementation("eager")
        whole_BV = model(torch.tensor([row])).logits[:, -1]
        model.set_attn_implementation("sdpa")
        assert (model(torch.tensor([row])).logits[:, -1] - whole_BV).abs().max() > 0.1
    torch.testing.assert_close(logits_BV, whole_BV, rtol=0, atol=1e-4)


def test_a_new_batch_knows_nothing_of_the_last_one() -> None:
    cached = CachedModel(_model())
    with torch.inference_mode():
        first = cached.prefill([[1, 2, 3]])
        cached.prefill([[4, 5], [6, 7]])
        assert torch.equal(cached.prefill([[1, 2, 3]]), first)


def _decoder(name: str) -> Any:
    """Return a model whose forward takes no positions: those of OPT follow from the mask, those of BART do not."""
    from transformers import BartConfig, BartForCausalLM, OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    size = {"vocab_size": VOCAB, "max_position_embeddings": 64, "pad_token_id": 1, "init_std": 0.3}
    if name == "opt":
        more = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
        return OPTForCausalLM(OPTConfig(**size, **more, word_embed_proj_dim=32)).eval()
    more = {"d_model": 32, "decoder_layers": 1, "decoder_ffn_dim": 48, "decoder_attention_heads": 2}
    return BartForCausalLM(BartConfig(**size, **more, is_decoder=True, is_encoder_decoder=False)).eval()


@pytest.mark.parametrize(("name", "rows"), [("opt", [[5, 6, 7], [8], [9]]), ("bart", [[5, 6], [8, 9], [5, 6]])])
def test_models_that_take_no_positions_read_prompts(name: str, rows: list[list[int]]) -> None:
    """BART's config counts layers of an encoder, too: these layers of its cache stay empty."""
    model = _decoder(name)
    cached = CachedModel(model)
    with torch.inference_mode():
        cached.prefill(rows)
        logits_BV = cached.decode([10, 11], [1, 0])
        for row, logits_V in zip(([*rows[1], 10], [*rows[0], 11]), logits_BV, strict=True):
            torch.testing.assert_close(logits_V, model(torch.tensor([row])).logits[0, -1], rtol=0, atol=1e-5)


def test_a_model_that_counts_padding_is_refused_where_prompts_are_unequal() -> None:
    cached = CachedModel(_decoder("bart"))
    with torch.inference_mode(), pytest.raises(UnknownCacheError, match="BartForCausalLM: found logits that padding"):
        cached.prefill([[5, 6, 7], [8]])


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
