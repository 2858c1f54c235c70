"""A prompt: a conversation that ends before the response."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shards.format.messages import Message, messages_sha256
from teacher_dump.corpus.document import Drop


@dataclass(frozen=True, kw_only=True, slots=True)
class RawPrompt:
    """A prompt as its source holds it, or the reason why it cannot be used."""

    task_id: str
    messages: tuple[Message, ...]
    """Empty where there is a problem."""
    source: str
    path: str
    licence: str | None
    """None where the source has no field for it, "" where the field is empty."""
    problem: Drop | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ResponsePrompt:
    """A usable prompt."""

    task_id: str
    """Name that its responses carry; no two prompts share one."""
    messages: str
    """The conversation, as `shards.format.messages.messages_json` writes it."""
    source: str
    """Data set, file or folder."""
    path: str
    """Path in the source, or the row number."""
    licence: str
    """SPDX expression, "" where the source does not state it."""

    @property
    def document(self) -> str:
        """Digest of the conversation: all responses to a prompt are rows of one document."""
        return messages_sha256(self.messages)

    def conversation(self) -> list[Message]:
        """Return the messages."""
        messages: list[Message] = json.loads(self.messages)
        return messages


def user_message(content: str) -> tuple[Message, ...]:
    """Return a conversation of one message of the user."""
    return ({"role": "user", "content": content},)


def conversation_text(messages: Iterable[Mapping[str, Any]]) -> str:
    """Return the contents of messages, which the filters compare with benchmarks."""
    return "\n\n".join(message["content"] for message in messages)
