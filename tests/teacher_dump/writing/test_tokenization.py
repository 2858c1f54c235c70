"""Tests of the ids of prompts and of the ids that end a response."""

from __future__ import annotations

import json
from pathlib import Path

from teacher_dump.model.teachers import resolve
from teacher_dump.writing.engines.base import response_text
from teacher_dump.writing.tokenization import NO_LIMIT, WriterTokens
from tests.teacher_dump.conversations.conftest import sentencepiece
from tests.teacher_dump.writing.helpers import prompt

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<|endoftext|>{% endfor %}"
    "{{ '<assistant>' if add_generation_prompt }}"
)


def with_template(folder: Path) -> Path:
    """Give a model a chat template."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATE}))
    return folder


def test_a_chat_model_sees_its_own_template(teacher: Path) -> None:
    tokens = WriterTokens.of(resolve(str(with_template(teacher))))
    ids = tokens.prompt_ids(prompt("total = 0"))
    assert tokens.tokenizer.decode(ids) == "<user>total = 0<|endoftext|><assistant>"


def test_a_special_token_that_a_prompt_spells_is_found(teacher: Path) -> None:
    tokens = WriterTokens.of(resolve(str(teacher)))
    assert tokens.special_token_in(prompt("a <|endoftext|> b")) == "<|endoftext|>"
    assert tokens.special_token_in(prompt("a b")) is None


def test_a_base_model_sees_the_text_and_a_line_feed(teacher: Path) -> None:
    tokens = WriterTokens.of(resolve(str(teacher)))
    assert tokens.tokenizer.decode(tokens.prompt_ids(prompt("total = 0"))) == "<|endoftext|>total = 0\n"
    assert tokens.template.is_plain


def test_ends_of_config_and_generation_config_end_a_response(teacher: Path) -> None:
    path = teacher / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [0, 7, 999]}))
    tokens = WriterTokens.of(resolve(str(teacher)))
    assert tokens.end_ids == {0, 7}
    assert tokens.padded_vocab_size == 416
    assert tokens.context_length == 1024
    path.unlink()
    assert WriterTokens.of(resolve(str(teacher))).end_ids == {0}


def test_a_model_without_a_stated_context_has_no_limit(teacher: Path) -> None:
    path = teacher / "config.json"
    config = json.loads(path.read_text())
    del config["max_position_embeddings"]
    path.write_text(json.dumps(config))
    assert WriterTokens.of(resolve(str(teacher))).context_length in (NO_LIMIT, 2048)


class Spaces:
    """A tokenizer that drops the first space of what it decodes, as SentencePiece does."""

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(map(chr, ids)).removeprefix(" ")


def test_the_first_space_of_a_response_stays() -> None:
    prompt_ids, ids = [ord(c) for c in "[INST] q [/INST]"], [ord(c) for c in "    return x"]
    assert response_text(Spaces(), prompt_ids, ids) == "    return x"
    assert response_text(Spaces(), [], ids) == "   return x"


def test_a_prompt_is_decoded_from_a_whole_character_on() -> None:
    """The characters are ids of three bytes each: a part of one would spoil the bytes after it, the response's too."""
    tokenizer = sentencepiece("normalizer")

    def ids_of(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    prompt_ids, whole = ids_of("\u4f60" * 9 + "\n"), ids_of("\u4f60" * 9 + "\n\u597d x")
    assert response_text(tokenizer, prompt_ids, whole[len(prompt_ids) :]) == "\u597d x"
