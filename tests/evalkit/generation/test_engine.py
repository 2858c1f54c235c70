"""Does generation keep its rules? Decoding with the prompt, stops in text, settings from the protocol alone."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.generation import base, decoding, engine
from evalkit.generation.checkpoint import find_checkpoint
from evalkit.tasks import protocols
from shards.runtime import machine

pytest.importorskip("transformers")


def prompts(*texts: str) -> list[base.Prompt]:
    return [base.Prompt(task_id=f"T/{index}", index=0, text=text, seed=7) for index, text in enumerate(texts)]


def generate(
    checkpoint: Path,
    texts: list[str],
    protocol: protocols.PromptProtocol,
    settings: base.EngineSettings,
    answers: list[base.Answer],
) -> None:
    """Append an answer for each text to `answers`."""
    with engine.load_engine(find_checkpoint(str(checkpoint)), protocol, settings) as loaded:
        loaded.generate(prompts(*texts), on_answer=answers.append, on_tokens=lambda tokens: None)


def write(checkpoint: Path, texts: list[str], *, batch_size: int = 4, **changes) -> list[base.Answer]:
    protocol = protocols.adjust(protocols.PROTOCOLS[0], **({"max_new_tokens": 12} | changes))
    settings = base.EngineSettings(engine="transformers", batch_size=batch_size, dtype="float32")
    answers: list[base.Answer] = []
    generate(checkpoint, texts, protocol, settings, answers)
    return sorted(answers, key=lambda answer: answer.prompt.task_id)


TEXTS = ["def add(a, b):\n", "def longer_name(first, second, third):\n    return", "x", "import math\n\n\ndef f(x):\n"]


def test_left_padding_and_batching_do_not_change_greedy_answers(checkpoint: Path):
    alone = [write(checkpoint, [text])[0].completion for text in TEXTS]
    together = [answer.completion for answer in write(checkpoint, TEXTS)]
    assert together == alone


def test_an_answer_ends_before_its_stop_string_and_others_go_on(checkpoint: Path):
    free = write(checkpoint, TEXTS, stop=())
    stop = free[0].completion[2:5]
    stopped = write(checkpoint, TEXTS, stop=(stop,))
    assert stopped[0].stop_reason == "stop"
    assert stopped[0].completion == free[0].completion[: free[0].completion.find(stop)]
    for one, other in zip(free[1:], stopped[1:], strict=True):
        if stop not in one.completion:
            assert (other.completion, other.stop_reason) == (one.completion, "length")


def test_what_the_checkpoint_says_about_sampling_is_left_out(checkpoint: Path, tmp_path: Path):
    import shutil

    copy = tmp_path / "ckpt"
    shutil.copytree(checkpoint, copy)
    config = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps(config | {"repetition_penalty": 5.0, "do_sample": True}))
    assert [a.completion for a in write(copy, TEXTS)] == [a.completion for a in write(checkpoint, TEXTS)]


def test_sampling_depends_on_the_seed_only(checkpoint: Path):
    first = [answer.completion for answer in write(checkpoint, TEXTS, temperature=1.5)]
    assert first == [answer.completion for answer in write(checkpoint, TEXTS, temperature=1.5)]
    assert first != [answer.completion for answer in write(checkpoint, TEXTS)]


def test_a_sample_depends_on_its_own_seed_and_not_on_its_company(checkpoint: Path):
    alone = [write(checkpoint, TEXTS, batch_size=1, temperature=0.8, top_p=0.95)]
    together = [write(checkpoint, TEXTS, batch_size=4, temperature=0.8, top_p=0.95)]
    assert [a.completion for a in together[0]] == [a.completion for a in alone[0]]


def test_samples_of_one_prompt_share_what_was_read_of_it(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    from transformers import LlamaForCausalLM

    shapes = []
    forward = LlamaForCausalLM.forward

    def watch(self, input_ids=None, **more):
        shapes.append(tuple(input_ids.shape))
        return forward(self, input_ids=input_ids, **more)

    watch.__signature__ = inspect.signature(forward)  # the engine passes what the model takes
    monkeypatch.setattr(LlamaForCausalLM, "forward", watch)
    answers = write(checkpoint, [TEXTS[0]] * 3 + [TEXTS[1]], temperature=1.0)
    assert shapes[0][0] == 2  # two distinct prompts
    assert shapes[1] == (4, 1)
    assert len(answers) == 4


def test_greedy_answers_are_those_of_transformers_generate(checkpoint: Path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    for text, answer in zip(TEXTS, write(checkpoint, TEXTS, stop=()), strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        written = model.generate(ids, max_new_tokens=12, do_sample=False)[0].tolist()
        assert answer.completion == tokenizer.decode(written, skip_special_tokens=True)[len(text) :]


def test_a_prompt_that_does_not_fit_is_named(checkpoint: Path):
    with pytest.raises(EvalError, match=r"prompt of T/0 has \d+ tokens, the model takes 2048"):
        write(checkpoint, ["x y " * 3000])


def indentation_survives(tokenizer) -> None:
    prompt, answer = "def f(x):\n", "    return x + 1\n"
    prompt_ids = tokenizer(prompt)["input_ids"]
    whole_ids = tokenizer(prompt + answer)["input_ids"]
    assert whole_ids[: len(prompt_ids)] == prompt_ids
    assert decoding.answer_text(tokenizer, prompt_ids, whole_ids[len(prompt_ids) :]) == answer
    assert tokenizer.decode(whole_ids[len(prompt_ids) :], skip_special_tokens=True) != answer  # the trap itself


def test_indentation_survives_the_llama_tokenizer(shared_data: Path):
    from transformers import AutoTokenizer

    indentation_survives(AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "llama-2"))


def test_indentation_survives_a_tokenizer_like_sentencepiece():
    """Spaces as marks before words, one put in front of the text and dropped from what is decoded: as in Llama 2."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = {
        piece: number for number, piece in enumerate(["<unk>", "</s>", "\u2581", *sorted(set("def(x):\n return+1"))])
    }
    words = Tokenizer(models.BPE(vocab=pieces, merges=[], unk_token="<unk>"))
    words.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    words.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(content=" ", left=1, right=0)]
    )
    indentation_survives(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>"))


def test_cutting_takes_the_earliest_stop_string():
    assert decoding.cut_at_stop("a\n#b\ndef", ("\ndef", "\n#")) == ("a", True)
    assert decoding.cut_at_stop("abc", ("\ndef",)) == ("abc", False)


def test_auto_takes_transformers_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings, why = engine.choose_settings("auto", batch_size=None, deterministic=False)
    assert (settings.engine, why) == ("transformers", "no GPU")


@pytest.mark.parametrize(("features", "dtype"), [({"avx2", "avx512_bf16"}, "bfloat16"), ({"avx2"}, "float32")])
def test_auto_dtype_is_what_the_machine_computes_in(features: set, dtype: str, monkeypatch: pytest.MonkeyPatch):
    import torch

    here = dataclasses.replace(machine.processor(), features=frozenset(features), architecture="x86_64")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "processor", lambda: here)
    for variable in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(variable, raising=False)
    assert engine.choose_settings("auto", batch_size=None, deterministic=False)[0].dtype == dtype
    assert engine.choose_settings("auto", batch_size=None, deterministic=True)[0].dtype == "float32"


def test_what_is_announced_names_the_dtype_its_reason_and_any_slowdown(monkeypatch: pytest.MonkeyPatch):
    import torch

    here = dataclasses.replace(machine.processor(), features=frozenset({"avx2"}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "processor", lambda: here)

    def announced(asked: str) -> list[str]:
        settings, why = engine.choose_settings("auto", batch_size=None, deterministic=False, dtype=asked)
        return engine.announcement(settings, why, asked)

    (line,) = announced("auto")
    assert line.startswith("engine transformers (no GPU), float32 (auto: the processor does not compute in bfloat16)")
    slow, line = announced("bfloat16")
    assert "times as long as in float32 (measured now)" in slow
    assert "bfloat16 (as given" in line
    record = engine.hardware("auto", deterministic=False)
    assert record == {
        "dtype_why": "auto: the processor does not compute in bfloat16",
        "threads": 1,
        "machine": machine.describe(torch, cpu=here),
    }


def write_by_vllm(checkpoint: Path, texts: list[str], **changes) -> list[base.Answer]:
    """In the order in which they end."""
    pytest.importorskip("vllm")
    protocol = protocols.adjust(protocols.PROTOCOLS[0], **({"max_new_tokens": 12} | changes))
    answers: list[base.Answer] = []
    generate(checkpoint, texts, protocol, base.EngineSettings(engine="vllm", batch_size=4, dtype="float32"), answers)
    return answers


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_writes_the_same_greedy_answers(checkpoint: Path):
    ours = {answer.prompt.task_id: answer.completion for answer in write(checkpoint, TEXTS)}
    assert {answer.prompt.task_id: answer.completion for answer in write_by_vllm(checkpoint, TEXTS)} == ours


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_hands_out_what_has_ended_and_samples_by_the_seed(checkpoint: Path):
    """More requests than places, of prompts that repeat. A stop string cuts the same texts, and changes no other."""
    texts = [text for text in TEXTS for _ in range(5)]
    sampled = {"temperature": 0.8, "top_p": 0.95}
    free = {answer.prompt.task_id: answer for answer in write_by_vllm(checkpoint, texts, stop=(), **sampled)}
    assert sorted(free) == sorted(f"T/{index}" for index in range(len(texts)))
    written = [answer.completion for answer in free.values()]
    stop = next(c for c in sorted(set("".join(written))) if 0 < sum(c in text for text in written) < len(written))
    for answer in write_by_vllm(checkpoint, texts, stop=(stop,), **sampled):
        before = free[answer.prompt.task_id]
        assert answer.completion == before.completion.split(stop)[0]
        assert answer.stop_reason == ("stop" if stop in before.completion else before.stop_reason)
