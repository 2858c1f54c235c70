"""Tests of decoding: indentation, stop strings."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.generation import decoding

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
