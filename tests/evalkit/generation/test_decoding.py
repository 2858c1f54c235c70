"""Tests of decoding: indentation, stop strings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.generation import decoding
from evalkit.generation.base import Answer, EngineSettings, Prompt
from evalkit.generation.decoding import PromptQueue, memory_advice

pytest.importorskip("transformers")


def indentation_survives(tokenizer) -> None:
    prompt, answer = "def f(x):\n", "    return x + 1\n"
    prompt_ids = tokenizer(prompt)["input_ids"]
    whole_ids = tokenizer(prompt + answer)["input_ids"]
    assert whole_ids[: len(prompt_ids)] == prompt_ids
    assert decoding.answer_text(tokenizer, prompt_ids, whole_ids[len(prompt_ids) :]) == answer
    assert tokenizer.decode(whole_ids[len(prompt_ids) :], skip_special_tokens=True) != answer  # the trap itself


@pytest.mark.slow
def test_indentation_survives_the_llama_tokenizer(shared_data: Path):
    from transformers import AutoTokenizer

    indentation_survives(AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "llama-2"))


def test_indentation_survives_a_tokenizer_like_sentencepiece():
    """As in Llama 2: spaces become marks, one is prepended to the text, and decoding drops the first."""
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
    assert decoding.cut_at_stop("a\n#b\ndef", ("\ndef", "\n#")) == ("a", "\n#")
    assert decoding.cut_at_stop("abc", ("\ndef",)) == ("abc", "")


class Ready:
    """Follow-ups that are ready in turn, one list for each question."""

    extra_tokens = 0

    def __init__(self, *ready: list[str]) -> None:
        self.ready = list(ready)
        self.waits: list[str] = []

    def take(self, wait: str) -> list[Prompt]:
        self.waits.append(wait)
        return [prompt(text) for text in (self.ready.pop(0) if self.ready else [])]


def prompt(text: str) -> Prompt:
    return Prompt(task_id="T/0", index=0, text=text, seed=0)


def queue_of(texts: str, follow_ups: Ready, answers: list[Answer], *, deterministic: bool) -> PromptQueue:
    return PromptQueue(
        [prompt(text) for text in texts],
        [[0]] * len(texts),
        tokenizer=lambda text: {"input_ids": list(range(len(text)))},
        follow_ups=follow_ups,
        on_answer=answers.append,
        deterministic=deterministic,
    )


def taken(queue: PromptQueue, room: int, *, is_idle: bool = True) -> list[str]:
    return [pending.prompt.text for pending in queue.take(room, max_len=5, is_idle=is_idle)]


def test_follow_ups_start_before_first_prompts():
    follow_ups = Ready([], ["x"], ["y", "z"], ["w"])
    queue = queue_of("abcd", follow_ups, [], deterministic=False)
    assert taken(queue, 2) == ["a", "b"]
    assert taken(queue, 2) == ["x", "c"]
    assert taken(queue, 1, is_idle=False) == ["y"]
    assert taken(queue, 9) == ["z", "w", "d"]
    assert taken(queue, 9) == []
    assert follow_ups.waits == ["no"] * 4 + ["first"]


def test_follow_ups_of_deterministic_runs_have_batches_of_their_own():
    follow_ups = Ready([], ["x"], [], ["y"])
    queue = queue_of("abc", follow_ups, [], deterministic=True)
    assert [taken(queue, 2) for _ in range(5)] == [["a", "b"], ["x"], ["c"], ["y"], []]
    assert set(follow_ups.waits) == {"all"}


def test_a_follow_up_beyond_the_context_gets_an_empty_answer():
    follow_ups, answers = Ready(["12345"], ["1234"]), []
    queue = queue_of("", follow_ups, answers, deterministic=False)
    assert taken(queue, 2) == ["1234"]
    assert [(answer.prompt.text, answer.completion, answer.stop_reason) for answer in answers] == [
        ("12345", "", "length")
    ]


def test_without_follow_ups_prompts_come_in_their_order():
    queue = PromptQueue(
        [prompt(text) for text in "abc"],
        [[0]] * 3,
        tokenizer=None,
        follow_ups=None,
        on_answer=lambda _: None,
        deterministic=False,
    )
    assert [taken(queue, 2) for _ in range(3)] == [["a", "b"], ["c"], []]


@pytest.mark.parametrize(
    ("batch_size", "deterministic", "advice"),
    [
        (8, False, "lower --batch-size, or free some, and run the command again; samples so far are kept"),
        (8, True, "with --deterministic it generates all samples again"),
        (1, False, "choose a smaller model"),
        (1, True, "choose a smaller model"),
    ],
)
def test_advice_about_memory_is_true_of_the_samples_so_far(batch_size: int, deterministic: bool, advice: str):
    """A lower batch size continues a run that is not deterministic, and begins another one that is."""
    settings = EngineSettings(
        engine="transformers", batch_size=batch_size, dtype="float32", deterministic=deterministic
    )
    assert advice in memory_advice(settings)
    lower = replace(settings, batch_size=1)
    assert (lower.run_dict() == settings.run_dict()) == (not deterministic or batch_size == 1)
