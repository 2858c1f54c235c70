"""The conversation of a row: messages up to the response, as canonical JSON.

The same conversation always has the same text, so its digest names it: all responses to a prompt are rows of one
document, and a held-out document keeps all of them out of training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from shards.errors import ShardError
from shards.format.chunk import RowInfo
from shards.format.schema import canonical_json

Message = dict[str, str]
"""`role` and `content`."""


def messages_json(messages: Iterable[Mapping[str, object]]) -> str:
    """Return messages as `RowInfo.messages` holds them.

    Args:
        messages: Mappings with the keys `role` and `content` and no others, in order.

    Raises:
        ShardError: If there is no message, or one has other keys, or values that are not strings.
    """
    checked = [_checked(message) for message in messages]
    if not checked:
        raise ShardError("messages: found none, expected at least one before the response")
    return canonical_json(checked).decode("ascii")


def parse_messages(text: str) -> list[Message]:
    """Return the messages in `RowInfo.messages`; [] for "", a row without a conversation.

    Raises:
        ShardError: If the text is not what `messages_json` writes.
    """
    if not text:
        return []
    try:
        messages: list[Message] = json.loads(text)
        is_canonical = isinstance(messages, list) and messages_json(messages) == text
    except (ValueError, TypeError, RecursionError):
        is_canonical = False
    if not is_canonical:
        raise ShardError(
            f"messages: found {text[:60]!r}, expected a canonical JSON list of objects with role and content"
        )
    return messages


def messages_sha256(text: str) -> str:
    """Return the digest that is `RowInfo.document` of the rows with these messages, hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def opening_sha256(info: RowInfo) -> str:
    """Return the digest of what a row's conversation opens with: its messages before the first one of the assistant.

    Turns of one conversation share it. The opening of a row without an earlier answer is its document.
    """
    messages = parse_messages(info.messages)
    roles = [message["role"] for message in messages]
    if "assistant" not in roles[1:]:
        return info.document
    return messages_sha256(messages_json(messages[: roles.index("assistant", 1)]))


def conversation_problem(info: RowInfo) -> str | None:
    """Return what is wrong with the conversation of a row, None if it is sound or there is none."""
    if not info.messages:
        return None
    try:
        parse_messages(info.messages)
    except ShardError as error:
        return str(error)
    if info.document != messages_sha256(info.messages):
        return f"document: found {info.document[:12]}, expected the digest of the row's messages"
    return None


def _checked(message: object) -> Message:
    if not isinstance(message, Mapping):
        raise ShardError(f"messages: found a {type(message).__name__}, expected an object with role and content")
    role, content = message.get("role"), message.get("content")
    if message.keys() != {"role", "content"} or not isinstance(role, str) or not isinstance(content, str):
        raise ShardError(
            f"messages: found a message with {', '.join(map(str, message)) or 'no keys'}, expected role and content, "
            "both strings"
        )
    return {"role": role, "content": content}
