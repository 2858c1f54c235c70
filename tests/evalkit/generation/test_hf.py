"""Tests of generation with transformers: batches, stop strings, sampling."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.generation.base import Answer, Prompt
from tests.evalkit.generation.answers import TEXTS, generate_in_order, load


def test_left_padding_and_batching_do_not_change_greedy_answers(checkpoint: Path):
    alone = [generate_in_order(checkpoint, [text])[0].completion for text in TEXTS]
    together = [answer.completion for answer in generate_in_order(checkpoint, TEXTS)]
    assert together == alone


def test_an_answer_ends_before_its_stop_string_and_others_go_on(checkpoint: Path):
    free = generate_in_order(checkpoint, TEXTS, stop=())
    stop = free[0].completion[2:5]
    stopped = generate_in_order(checkpoint, TEXTS, stop=(stop,))
    assert stopped[0].stop_reason == "stop"
    assert stopped[0].completion == free[0].completion[: free[0].completion.find(stop)]
    for before, after in zip(free[1:], stopped[1:], strict=True):
        if stop not in before.completion:
            assert (after.completion, after.stop_reason) == (before.completion, "length")


def test_sampling_settings_of_the_checkpoint_are_ignored(checkpoint: Path, tmp_path: Path):
    import shutil

    copy = tmp_path / "ckpt"
    shutil.copytree(checkpoint, copy)
    config = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps(config | {"repetition_penalty": 5.0, "do_sample": True}))
    assert [a.completion for a in generate_in_order(copy, TEXTS)] == [
        a.completion for a in generate_in_order(checkpoint, TEXTS)
    ]


def test_sampling_depends_on_the_seed_only(checkpoint: Path):
    first = [answer.completion for answer in generate_in_order(checkpoint, TEXTS, temperature=1.5)]
    assert first == [answer.completion for answer in generate_in_order(checkpoint, TEXTS, temperature=1.5)]
    assert first != [answer.completion for answer in generate_in_order(checkpoint, TEXTS)]


def test_a_sample_depends_on_its_own_seed_and_not_on_its_batch(checkpoint: Path):
    alone = [generate_in_order(checkpoint, TEXTS, batch_size=1, temperature=0.8, top_p=0.95)]
    together = [generate_in_order(checkpoint, TEXTS, batch_size=4, temperature=0.8, top_p=0.95)]
    assert [a.completion for a in together[0]] == [a.completion for a in alone[0]]


def test_samples_of_one_prompt_share_its_prefill(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    from transformers import LlamaForCausalLM

    shapes = []
    forward = LlamaForCausalLM.forward

    def watch(self, input_ids=None, **more):
        shapes.append(tuple(input_ids.shape))
        return forward(self, input_ids=input_ids, **more)

    watch.__signature__ = inspect.signature(forward)  # the engine passes what the model takes
    monkeypatch.setattr(LlamaForCausalLM, "forward", watch)
    answers = generate_in_order(checkpoint, [TEXTS[0]] * 3 + [TEXTS[1]], temperature=1.0)
    assert shapes[0][0] == 2  # two distinct prompts
    assert shapes[1] == (4, 1)
    assert len(answers) == 4


def test_greedy_answers_are_those_of_transformers_generate(checkpoint: Path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    for text, answer in zip(TEXTS, generate_in_order(checkpoint, TEXTS, stop=()), strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        written = model.generate(ids, max_new_tokens=12, do_sample=False)[0].tolist()
        assert answer.completion == tokenizer.decode(written, skip_special_tokens=True)[len(text) :]


def test_a_prompt_that_does_not_fit_is_named(checkpoint: Path):
    with pytest.raises(EvalError, match=r"prompt of T/0 has \d+ tokens, the model takes 2048"):
        generate_in_order(checkpoint, ["x y " * 3000])


def test_exhausted_gpu_memory_names_the_batch_size(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    import torch
    from transformers import LlamaForCausalLM

    def exhausted(*arguments: object, **settings: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 19.33 GiB. GPU 0 has")

    monkeypatch.setattr(LlamaForCausalLM, "forward", exhausted)
    with pytest.raises(EvalError, match=r"with 4 answers at a time \(CUDA out of memory\); lower --batch-size"):
        generate_in_order(checkpoint, TEXTS)
    with pytest.raises(EvalError, match=r"with 1 answers at a time \(CUDA out of memory\); free some, or choose a"):
        generate_in_order(checkpoint, TEXTS, batch_size=1)


def test_a_cache_that_is_not_known_ends_with_one_line(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    from shards.decoding import cache_rows

    def refused(*_: object, **__: object) -> None:
        raise cache_rows.UnknownCacheError("Toy: found a ToyCache, expected a DynamicCache; use another model")

    with monkeypatch.context() as patched:
        patched.setattr(cache_rows, "require_known", refused)
        with pytest.raises(EvalError, match=r"checkpoint.*: Toy: found a ToyCache"):
            generate_in_order(checkpoint, TEXTS)
    with load(checkpoint, engine="transformers") as engine:
        prompts = [Prompt(task_id="T/0", index=0, text=TEXTS[0], seed=7)]
        engine.generate(prompts, on_answer=lambda answer: None, on_tokens=lambda tokens: None)
        monkeypatch.setattr(cache_rows, "require_known", refused)  # what the model makes while it runs
        with pytest.raises(EvalError, match="found a ToyCache"):
            engine.generate(prompts, on_answer=lambda answer: None, on_tokens=lambda tokens: None)


def test_a_prompt_has_its_own_temperature_beside_greedy_ones(checkpoint: Path):
    """In one batch: a sampled answer is that of a sampled run, and a greedy one that of a greedy run."""
    greedy = generate_in_order(checkpoint, TEXTS)
    sampled = generate_in_order(checkpoint, TEXTS, temperature=1.5)
    temperatures = [None, 1.5, None, 1.5]
    with load(checkpoint, engine="transformers") as engine:
        prompts = [
            Prompt(task_id=f"T/{index}", index=0, text=text, seed=7, temperature=temperature)
            for index, (text, temperature) in enumerate(zip(TEXTS, temperatures, strict=True))
        ]
        answers: list[Answer] = []
        engine.generate(prompts, on_answer=answers.append, on_tokens=lambda tokens: None)
    mixed = sorted(answers, key=lambda answer: answer.prompt.task_id)
    expected = [greedy[0], sampled[1], greedy[2], sampled[3]]
    assert [answer.completion for answer in mixed] == [answer.completion for answer in expected]
