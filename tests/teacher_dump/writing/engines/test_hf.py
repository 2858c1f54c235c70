"""Tests of writing with transformers, against the plain forward and `generate` of the same model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from shards.decoding import cached_model
from teacher_dump.errors import DumpError
from teacher_dump.model.causal_lm import load
from teacher_dump.writing.engines import hf
from teacher_dump.writing.engines.base import WriterConfig
from teacher_dump.writing.engines.hf import TransformersWriter
from teacher_dump.writing.task import ResponseRequest, WritingTask, WrittenResponse
from tests.teacher_dump.writing.helpers import request

PROMPTS = ([0, 5, 9], [0, 7], [0, 11, 13, 17, 19, 23])


def respond(config: WriterConfig, requests: Sequence[ResponseRequest]) -> list[WrittenResponse]:
    """Return the responses to some requests, as one task."""
    task = WritingTask(name="t", prompts=tuple({r.prompt.task_id: r.prompt for r in requests}.values()), samples=1)
    ((given, responses),) = TransformersWriter(config).write([(task, requests)], lambda tokens, answers: None)
    assert given is task
    return list(responses)


def sampled(samples: int = 3) -> list[ResponseRequest]:
    """Return requests for several samples of each prompt."""
    return [
        request(ids, index=index, seed=100 * number + index, task_id=str(number))
        for number, ids in enumerate(PROMPTS)
        for index in range(samples)
    ]


def test_greedy_responses_are_those_of_generate(writer_config: WriterConfig) -> None:
    config = dataclasses.replace(writer_config, temperature=0.0)
    model = load(config.folder, dtype="float32")
    requests = [request(ids, task_id=str(n)) for n, ids in enumerate(PROMPTS)]
    for item, response in zip(requests, respond(config, requests), strict=True):
        expected = model.generate(
            torch.tensor([item.prompt_ids]),
            do_sample=False,
            max_new_tokens=config.max_new_tokens,
            suppress_tokens=list(range(400, 416)),
            use_cache=True,
            eos_token_id=[0],
            pad_token_id=0,
        )[0, len(item.prompt_ids) :]
        assert list(response.ids) == expected.tolist()
        assert response.request is item


def test_the_log_probability_is_that_of_the_plain_forward(writer_config: WriterConfig) -> None:
    config = dataclasses.replace(writer_config, temperature=0.7, top_p=0.9)
    model = load(config.folder, dtype="float32")
    for response in respond(config, sampled()):
        context = len(response.request.prompt_ids)
        ids_T = torch.tensor([*response.request.prompt_ids, *response.ids])
        with torch.inference_mode():
            logp_TV = model(ids_T[None]).logits[0, :, :400].log_softmax(-1)
        chosen = logp_TV[context - 1 : -1].gather(1, ids_T[context:, None])
        assert response.logprob == pytest.approx(float(chosen.sum()), abs=1e-3)


def test_a_response_depends_on_its_seed_and_not_on_its_batch(
    writer_config: WriterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = sampled()
    together = respond(writer_config, requests)
    assert len({response.ids for response in together}) > 6
    alone = [respond(writer_config, [item])[0] for item in requests]
    assert [r.ids for r in together] == [r.ids for r in alone]
    monkeypatch.setattr(hf, "BATCH_ANSWERS", {"cpu": 2})
    monkeypatch.setattr(cached_model, "CPU_PREFILL_TOKENS", 7)
    assert [r.ids for r in respond(writer_config, requests)] == [r.ids for r in alone]


def test_prompts_of_one_name_have_a_response_each(writer_config: WriterConfig) -> None:
    config = dataclasses.replace(writer_config, temperature=0.0)
    requests = [request(ids, task_id="train.jsonl/0:main") for ids in PROMPTS]
    responses = respond(config, requests)
    assert [response.request.prompt_ids for response in responses] == [item.prompt_ids for item in requests]
    assert [r.ids for r in responses] == [respond(config, [item])[0].ids for item in requests]


def test_a_repeated_task_gives_the_same_bits(writer_config: WriterConfig) -> None:
    assert respond(writer_config, sampled()) == respond(writer_config, sampled())


def test_a_response_ends_with_an_end_id_or_at_its_largest_length(writer_config: WriterConfig) -> None:
    ends = frozenset(range(0, 400, 7))
    config = dataclasses.replace(writer_config, end_ids=ends, max_length=14)
    responses = respond(config, sampled(8))
    for response in responses:
        room = min(config.max_new_tokens, 14 - len(response.request.prompt_ids))
        assert not ends.intersection(response.ids[:-1])
        assert max(response.ids) < config.vocab_size
        ended = response.ids[-1] in ends
        assert response.finish_reason == ("stop" if ended else "length")
        assert len(response.ids) <= room
        assert ended or len(response.ids) == room
    assert {r.finish_reason for r in responses} == {"stop", "length"}


def test_a_model_whose_state_is_not_known_is_refused_in_one_line(writer_config: WriterConfig, tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    MambaForCausalLM(MambaConfig(vocab_size=416, hidden_size=16, num_hidden_layers=1)).save_pretrained(tmp_path)
    with pytest.raises(DumpError, match=f"^{tmp_path}: MambaForCausalLM: found states outside of past") as caught:
        TransformersWriter(dataclasses.replace(writer_config, folder=tmp_path))
    assert "\n" not in str(caught.value)


def test_a_model_that_counts_padding_is_refused_in_one_line(writer_config: WriterConfig, tmp_path: Path) -> None:
    from transformers import BartConfig, BartForCausalLM

    size = {"d_model": 16, "decoder_layers": 1, "decoder_ffn_dim": 16, "decoder_attention_heads": 1, "init_std": 0.3}
    BartForCausalLM(BartConfig(vocab_size=416, **size, is_encoder_decoder=False)).save_pretrained(tmp_path)
    with pytest.raises(DumpError, match=f"^{tmp_path}: BartForCausalLM: found logits that padding changes"):
        respond(dataclasses.replace(writer_config, folder=tmp_path), sampled())


def test_batches_respect_the_limits_and_lose_nothing(
    writer_config: WriterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf, "BATCH_ANSWERS", {"cpu": 5})
    monkeypatch.setattr(hf, "_cache_tokens", lambda model, device: 90)
    writer = TransformersWriter(writer_config)
    requests = [request([1] * (1 + 7 * n % 30), index=i, task_id=str(n)) for n in range(20) for i in range(1 + n % 3)]
    batches = list(writer._batches(requests))
    assert sorted(place for batch in batches for place in batch) == list(range(len(requests)))
    for batch in ([requests[place] for place in batch] for batch in batches):
        longest = max(len(item.prompt_ids) for item in batch) + writer_config.max_new_tokens
        assert len(batch) <= 5
        assert len(batch) * longest <= 90 or len(batch) == 1
