"""Tests of chat templates: the student's is rendered as the teacher's own code renders it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shards.format.messages import messages_json, parse_messages
from student_train.data.chat_template import StudentTemplate
from student_train.errors import StudentError, TrainError
from teacher_dump.conversations.template import ChatTemplate
from tests.student_train.responses import INST, TEMPLATES, VOCAB, write_tokenizer

MESSAGES = messages_json([{"role": "user", "content": "Say caf\u00e9.\n"}])


@pytest.mark.parametrize("name", TEMPLATES)
def test_teacher_and_student_of_one_folder_read_the_same_context(tools: Any, tmp_path: Path, name: str) -> None:
    template = StudentTemplate.load("student", write_tokenizer(tools, tmp_path, TEMPLATES[name]))
    prefix = () if TEMPLATES[name] else (0,)
    theirs = ChatTemplate.of(tmp_path, template.tokenizer, prefix_tokens=prefix, vocab_size=VOCAB)
    assert template.context_ids(MESSAGES).tolist() == list(theirs.context_ids(parse_messages(MESSAGES)))
    assert template.end_of_turn == theirs.end_of_turn
    # What is exported makes other programs read it, too.
    exported = template.tokenizer.apply_chat_template(
        parse_messages(MESSAGES), chat_template=template.exported, add_generation_prompt=True, tokenize=False
    )
    assert (
        template.tokenizer(exported, add_special_tokens=False)["input_ids"] == template.context_ids(MESSAGES).tolist()
    )


def test_roles_that_a_template_refuses_are_named(tools: Any, tmp_path: Path) -> None:
    template = StudentTemplate.load("student", write_tokenizer(tools, tmp_path, INST))
    messages = messages_json([{"role": "system", "content": "x"}, {"role": "user", "content": "y"}])
    with pytest.raises(TrainError, match=r"student: its chat template cannot render a conversation of system, user \("):
        template.context_ids(messages)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=r"student: the tokenizer in .* does not load"):
        StudentTemplate.load("student", tmp_path)
