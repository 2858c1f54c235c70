"""Tests of the canonical form of a conversation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import ShardError
from shards.format.messages import messages_json, messages_sha256, parse_messages

_MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text()}), min_size=1
)


@given(_MESSAGES)
def test_messages_come_back_as_they_were(messages: list[dict[str, str]]) -> None:
    assert parse_messages(messages_json(messages)) == messages


def test_the_order_of_keys_does_not_change_the_text() -> None:
    text = messages_json([{"role": "user", "content": "caf\u00e9"}])
    assert text == messages_json([{"content": "caf\u00e9", "role": "user"}])
    assert text == '[{"content":"caf\\u00e9","role":"user"}]'
    assert messages_sha256(text) != messages_sha256(messages_json([{"role": "system", "content": "caf\u00e9"}]))


def test_a_row_without_a_conversation_has_no_messages() -> None:
    assert parse_messages("") == []


@pytest.mark.parametrize(
    "messages",
    [[], [{"role": "user"}], [{"role": "user", "content": None}], [{"role": "user", "content": "x", "name": "y"}]],
)
def test_what_is_no_conversation_is_refused(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(ShardError, match="messages: found"):
        messages_json(messages)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "x",
        "[1]",
        "[{}]",
        "null",
        "[" * 100_000,
        '[{"role":"user","content":"x"}]',
        '[{"content": "x","role":"user"}]',
    ],
)
def test_text_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(ShardError, match="messages: found"):
        parse_messages(text)
