"""One answer: a response, and the conversation up to it. It becomes one row of a cache."""

from __future__ import annotations

from dataclasses import dataclass

from shards.format.manifest import Writer
from shards.format.messages import messages_sha256, parse_messages


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedIds:
    """Token ids of an answer as its writer saw and generated them."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    """With the end-of-turn token, if the answer ended by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredConversation:
    """A response to a conversation."""

    messages: str
    """The conversation up to the response, as `shards.format.messages.messages_json` writes it."""
    response: str
    """Text of the response, without the end-of-turn token."""
    ended: bool = True
    """Whether the response ended by itself. One that was cut by its length has no end-of-turn token."""
    generated: GeneratedIds | None = None
    """None for a response that is given as text alone."""
    writer: Writer | None = None
    """The model that wrote the response; None if it is not known."""
    task_id: str = ""
    """Problem of a benchmark that the conversation asks for, "" for none."""
    index: int | None = None
    """Number of the answer among those to the same conversation, None if the data does not number them."""
    source: str
    path: str
    """Path in the source, or the row number."""
    licence: str | None
    """SPDX expression, "" where the field is empty, None where the data has no field for it."""

    @property
    def document(self) -> str:
        """Digest of the messages, which all answers to one conversation share."""
        return messages_sha256(self.messages)

    @property
    def text(self) -> str:
        """The contents of all messages and of the response, one after the other."""
        return "\n".join([*(message["content"] for message in parse_messages(self.messages)), self.response])
