"""Rows of a table with prompts: JSONL, parquet or a hub data set, with a column `prompt` or `messages`.

Both conventions of TRL's data sets are read. `prompt` is a text, which becomes the user's message, or a list of
messages. `messages` is a conversation; the last message of the assistant is cut off, since the writer responds anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from shards.format.messages import Message
from teacher_dump.conversations.rows import (
    ASSISTANT,
    MESSAGES,
    PROMPT,
    UnusableRow,
    messages_or_text,
    origin_of,
)
from teacher_dump.corpus.readers.hub import HubDataset, hub_rows
from teacher_dump.corpus.readers.rows import LICENCE_COLUMNS, PATH_COLUMNS, SOURCE_COLUMNS, printable
from teacher_dump.corpus.readers.table_rows import TableRow, is_list, is_text, place, read_rows
from teacher_dump.errors import DumpError
from teacher_dump.writing.prompts.prompt import RawPrompt

ID_COLUMN = "task_id"
_COLUMNS = (PROMPT, MESSAGES, ID_COLUMN, "source", *SOURCE_COLUMNS, *PATH_COLUMNS, *LICENCE_COLUMNS)
_EXPECTED = "expected `prompt` (a text or messages) or `messages` (a list of objects with role and content)"


def read_prompt_table(file: Path) -> Iterator[RawPrompt]:
    """Yield the prompts of a JSONL or parquet file.

    Raises:
        DumpError: The file is damaged, or no row holds a prompt.
    """
    return _prompts((place(file, row), row) for row in read_rows(file, _columns_to_read))


def read_prompt_hub(data: str) -> Iterator[RawPrompt]:
    """Yield the prompts of a hub data set.

    Raises:
        DumpError: The data set is unavailable, or no row holds a prompt.
    """
    dataset = HubDataset.parse(data)
    rows = hub_rows(
        dataset.repo, dataset.revision, folder=dataset.folder, split="train", streaming=True, columns=_COLUMNS
    )
    return _prompts(
        (f"{dataset.repo} row {number}", TableRow(number=number, source=dataset.repo, values=row))
        for number, row in enumerate(rows)
    )


def _prompts(rows: Iterable[tuple[str, TableRow]]) -> Iterator[RawPrompt]:
    first_problem = ""
    usable = False
    for where, row in rows:
        prompt = _prompt(row)
        usable = usable or prompt.problem is None
        if prompt.problem is not None and not first_problem:
            first_problem = f"{where}: {': '.join(filter(None, prompt.problem))}"
        yield prompt
    if first_problem and not usable:
        raise DumpError(f"{first_problem}; no row of --prompts can be used: {_EXPECTED}")


def _prompt(row: TableRow) -> RawPrompt:
    origin = origin_of(row.values, number=row.number, source=row.source)
    messages: list[Message] = []
    problem = row.problem
    task_id = row.values.get(ID_COLUMN)
    if problem is None:
        try:
            messages = _conversation(row.values)
        except UnusableRow as error:
            problem = error.drop
    return RawPrompt(
        task_id=str(row.number) if task_id is None else printable(_text(task_id)),
        messages=tuple(messages),
        source=origin.source,
        path=origin.path,
        licence=origin.licence,
        problem=problem,
    )


def _conversation(row: Mapping[str, Any]) -> list[Message]:
    """Return the messages before the response.

    Raises:
        UnusableRow: The row holds no prompt.
    """
    column = PROMPT if row.get(PROMPT) is not None else MESSAGES
    messages = messages_or_text(row, column, role="user")
    if messages[-1]["role"] == ASSISTANT:
        messages = messages[:-1]
    if not any(message["content"].strip() for message in messages):
        raise UnusableRow("blank")
    return messages


def _columns_to_read(schema: Any, file: Path) -> dict[str, bool]:
    """Return the columns of a parquet file that matter; a licence of an unsupported type counts as "not stated".

    Raises:
        DumpError: No column holds prompts.
    """
    names = [name for name in _COLUMNS if name in schema.names]
    if not {PROMPT, MESSAGES}.intersection(names):
        columns = ", ".join(map(printable, schema.names[:12])) or "none"
        raise DumpError(f"{printable(str(file))}: found columns {columns}, {_EXPECTED}")
    return {name: name not in LICENCE_COLUMNS or _holds_names(schema.field(name).type) for name in names}


def _holds_names(kind: Any) -> bool:
    return is_text(kind.value_type if is_list(kind) else kind)


def _text(value: Any) -> str | bytes:
    return value if isinstance(value, str | bytes) else str(value)
