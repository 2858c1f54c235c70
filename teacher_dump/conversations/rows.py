"""Conversion of a table's row into answers.

Three forms of rows are read: `messages`; `prompt` and `completion`, each a string or messages; and answers that a
model wrote, with the ids that it generated (`responses.jsonl`). The first two are the conventions of TRL's data sets. A
string in `prompt` is the message of a user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shards.format.manifest import Writer
from shards.format.messages import Message, messages_json
from teacher_dump.conversations.answered import AnsweredConversation, GeneratedIds
from teacher_dump.corpus.document import Drop
from teacher_dump.corpus.readers.rows import PATH_COLUMNS, SOURCE_COLUMNS, licence_of, printable

MESSAGES, PROMPT, COMPLETION = "messages", "prompt", "completion"
COLUMNS = (
    *(MESSAGES, PROMPT, COMPLETION, "prompt_ids", "ids", "finish_reason", "writer", "task_id", "index"),
    *("source", *SOURCE_COLUMNS),
    *PATH_COLUMNS,
)
"""All columns that are read, beside those of licences."""
ASSISTANT = "assistant"
MAX_INDEX = 2**31
TRAIN_ON = ("last", "all")
"""Values of --train-on."""
_FINISHED = {"stop": True, "length": False}
_WRITER_TEXTS = ("name", "revision", "weights_sha256", "tokenizer")


class UnusableRow(Exception):
    """A row that is no conversation. It is dropped, counted and listed.

    Args:
        reason: Name under which it is counted.
        detail: What was found.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.drop = Drop(reason, detail[:200])


@dataclass(frozen=True, kw_only=True, slots=True)
class RowOrigin:
    """The origin of a row's answers."""

    source: str
    path: str
    licence: str | None


def is_conversation(columns: Sequence[str] | Mapping[str, Any]) -> bool:
    """Return whether the columns of a table are those of conversations."""
    return MESSAGES in columns or (PROMPT in columns and COMPLETION in columns)


def origin_of(row: Mapping[str, Any], *, number: int, source: str) -> RowOrigin:
    """Return the origin that a row names.

    Args:
        row: Values by column. Texts may be bytes.
        number: Row number from 0: the path of a row without one.
        source: Name of the table: the source of a row without one.
    """

    def name(columns: Sequence[str], default: str) -> str:
        value = next((row[c] for c in columns if row.get(c) is not None), default)
        return printable(value if isinstance(value, str | bytes) else str(value))

    return RowOrigin(
        source=name(("source", *SOURCE_COLUMNS), source),
        path=name(PATH_COLUMNS, str(number)),
        licence=licence_of(row),
    )


def answers_of(row: Mapping[str, Any], origin: RowOrigin, *, train_on: str) -> Iterator[AnsweredConversation]:
    """Yield the answers of a row.

    Args:
        row: Values by column. Texts may be bytes, or hold surrogates for bytes that are not UTF-8.
        origin: Where the row is from.
        train_on: `last` for the last message of an assistant, `all` for each.

    Raises:
        UnusableRow: The row is no conversation.
    """
    if row.get(COMPLETION) is None and row.get(MESSAGES) is not None:
        messages, first = _messages(row[MESSAGES], MESSAGES), 0
    else:
        # `messages` beside a completion, in answers of a model, are those up to it.
        column = MESSAGES if row.get(PROMPT) is None and row.get(MESSAGES) is not None else PROMPT
        prompt = messages_or_text(row, column, role="user")
        messages, first = [*prompt, *messages_or_text(row, COMPLETION, role=ASSISTANT)], len(prompt)
    places = [i for i in range(first, len(messages)) if messages[i]["role"] == ASSISTANT]
    if not places:
        raise UnusableRow("no message of an assistant", ", ".join(m["role"] for m in messages))
    common = {**_facts(row), "source": origin.source, "path": origin.path, "licence": origin.licence}
    ended, generated = _ended(row), _generated(row)
    for place in places if train_on == "all" else places[-1:]:
        if place == 0:
            raise UnusableRow("nothing before the response")
        is_last = place == places[-1]
        yield AnsweredConversation(
            messages=messages_json(messages[:place]),
            response=messages[place]["content"],
            ended=ended or not is_last,
            generated=generated if is_last else None,
            **common,
        )


def messages_or_text(row: Mapping[str, Any], column: str, *, role: str) -> list[Message]:
    """Return the messages of a column that holds them, or a text, which is one message.

    Args:
        row: Values by column.
        column: Name of the column.
        role: Role of the message that a text is.

    Raises:
        UnusableRow: The column holds neither.
    """
    value = row.get(column)
    if value is None:
        raise UnusableRow("no conversation", f"{column} is missing or null")
    if isinstance(value, str | bytes):
        return [{"role": role, "content": _text(value, column)}]
    return _messages(value, column)


def _messages(value: Any, column: str) -> list[Message]:
    """Return messages with role and content and nothing else: a template may use other fields."""
    if not isinstance(value, list) or not value:
        raise UnusableRow("no conversation", f"found {type(value).__name__} in {column}, expected a list of messages")
    messages = []
    for item in value:
        if not isinstance(item, dict) or item.get("role") is None or item.get("content") is None:
            raise UnusableRow("no conversation", f"a message of {column} has no role or no content")
        others = [name for name in item if name not in ("role", "content") and item[name] not in (None, "", [], {})]
        if others:
            raise UnusableRow("a message with more than role and content", ", ".join(map(printable, others)))
        messages.append({"role": _text(item["role"], column), "content": _text(item["content"], column)})
    return messages


def _text(value: Any, column: str) -> str:
    """Return a text that is Unicode."""
    if not isinstance(value, str | bytes):
        raise UnusableRow("no conversation", f"found {type(value).__name__} in {column}, expected a string")
    try:
        text = value.decode("utf-8") if isinstance(value, bytes) else value
        text.encode("utf-8")
    except UnicodeDecodeError:
        raise UnusableRow("not UTF-8", column) from None
    except UnicodeEncodeError as error:
        # Surrogates from U+DC80 on stand for bytes of the file that are not UTF-8; others were written as escapes.
        is_byte = 0xDC80 <= ord(error.object[error.start]) <= 0xDCFF
        raise UnusableRow("not UTF-8" if is_byte else "lone surrogates", column) from None
    return text


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return task id, index and writer of a row."""
    index = row.get("index")
    if index is not None and (type(index) is not int or not 0 <= index < MAX_INDEX):
        raise UnusableRow("damaged answer", f"index {index!r}")
    task_id = row.get("task_id")
    return {
        "task_id": "" if task_id is None else _text(task_id if isinstance(task_id, bytes) else str(task_id), "task_id"),
        "index": index,
        "writer": _writer(row.get("writer")),
    }


def _ended(row: Mapping[str, Any]) -> bool:
    """Return whether the last response ended by itself; one that does not say so did."""
    reason = row.get("finish_reason")
    if reason is None:
        return True
    reason = _text(reason, "finish_reason")
    if reason not in _FINISHED:
        raise UnusableRow("damaged answer", f"finish_reason {reason!r}, expected {' or '.join(_FINISHED)}")
    return _FINISHED[reason]


def _generated(row: Mapping[str, Any]) -> GeneratedIds | None:
    ids, prompt_ids = row.get("ids"), row.get("prompt_ids")
    if ids is None or prompt_ids is None or row.get("writer") is None:
        return None  # without the writer's tokenizer, ids mean nothing
    for name, values in (("prompt_ids", prompt_ids), ("ids", ids)):
        if not isinstance(values, list) or not values or not all(type(i) is int and i >= 0 for i in values):
            raise UnusableRow("damaged answer", f"{name}: expected a list of token ids")
    return GeneratedIds(prompt_ids=tuple(prompt_ids), ids=tuple(ids))


def _writer(value: Any) -> Writer | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise UnusableRow("damaged answer", f"writer: found {type(value).__name__}, expected an object")
    values: dict[str, Any] = {
        str(name): _text(v, "writer") if name in _WRITER_TEXTS else v for name, v in value.items()
    }
    try:
        writer = Writer(**values)
    except TypeError as error:
        raise UnusableRow("damaged answer", f"writer: {error}") from None
    numbers = [value for name, value in values.items() if name not in _WRITER_TEXTS]
    if not all(type(number) in (int, float) for number in numbers):
        raise UnusableRow("damaged answer", f"writer: found settings {numbers}, expected numbers")
    return writer
