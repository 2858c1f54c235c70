"""Reader of conversations: table files, a folder of them, or a hub data set.

A corpus holds conversations if its first table has the columns of one and no column of texts.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teacher_dump.conversations.answered import AnsweredConversation
from teacher_dump.conversations.rows import COLUMNS, RowOrigin, UnusableRow, answers_of, is_conversation, origin_of
from teacher_dump.corpus.document import Drop
from teacher_dump.corpus.readers.folder import list_folder
from teacher_dump.corpus.readers.hub import HubDataset, hub_rows, is_hub_id
from teacher_dump.corpus.readers.rows import LICENCE_COLUMNS, TEXT_COLUMNS, printable
from teacher_dump.corpus.readers.sources import STDLIB, require_present
from teacher_dump.corpus.readers.table_rows import TableRow, is_list, is_text, place, read_rows
from teacher_dump.errors import DumpError

_EXPECTED = "expected `messages`, or `prompt` and `completion`"
_READ = (*COLUMNS, *LICENCE_COLUMNS)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationRow:
    """A row of the data: its answers, or why there is none."""

    origin: RowOrigin
    task_id: str
    """Problem of a benchmark, "" for none, also of an unusable row."""
    answers: tuple[AnsweredConversation, ...]
    problem: Drop | None = None
    content: bytes = b""
    """The line of a row that is not JSON."""


def holds_conversations(data: str) -> bool:
    """Return whether a corpus holds conversations, by the columns of its first row.

    Args:
        data: The value of --data.

    Raises:
        DumpError: The corpus cannot be read.
    """
    if data == STDLIB:
        return False
    if is_hub_id(data):
        columns: Mapping[str, Any] = next(_hub_rows(data, ()), {})
    elif not (files := _tables(data)):
        return False
    else:
        columns = _first_columns(files[0])
    return is_conversation(columns) and not any(column in columns for column in TEXT_COLUMNS)


def read_conversations(data: str, *, train_on: str, counts: Counter[str]) -> Iterator[ConversationRow]:
    """Yield the rows of a corpus of conversations, in order.

    Args:
        data: The value of --data.
        train_on: `last` or `all`: see `rows.answers_of`.
        counts: Receives the number of skipped files and folders, by reason.

    Raises:
        DumpError: The corpus cannot be read, or no row is a conversation.
    """
    if is_hub_id(data):
        name = HubDataset.parse(data).repo
        rows = (TableRow(number=n, source=name, values=row) for n, row in enumerate(_hub_rows(data, _READ)))
        named = ((f"{name} row {row.number}", row) for row in rows)
    else:
        files = _tables(data)
        if Path(data).is_dir():
            counts.update(list_folder(Path(data)).not_read)
        named = ((place(file, row), row) for file in files for row in read_rows(file, _columns_to_read))
    usable, first_problem = False, ""
    for where, row in named:
        converted = _convert(row, train_on=train_on)
        usable = usable or converted.problem is None
        if converted.problem is not None and not first_problem:
            first_problem = f"{where}: {': '.join(filter(None, converted.problem))}"
        yield converted
    if first_problem and not usable:
        raise DumpError(f"{first_problem}; no row of --data is a conversation: {_EXPECTED}")


def _convert(row: TableRow, *, train_on: str) -> ConversationRow:
    origin = origin_of(row.values, number=row.number, source=row.source)
    if row.problem is not None:
        return ConversationRow(origin=origin, task_id="", answers=(), problem=row.problem, content=row.content)
    try:
        answers = tuple(answers_of(row.values, origin, train_on=train_on))
    except UnusableRow as error:
        task_id = row.values.get("task_id")
        return ConversationRow(
            origin=origin, task_id=task_id if isinstance(task_id, str) else "", answers=(), problem=error.drop
        )
    return ConversationRow(origin=origin, task_id=answers[-1].task_id, answers=answers)


def _tables(data: str) -> list[Path]:
    require_present(data)
    path = Path(data)
    return list_folder(path).tables if path.is_dir() else [path]


def _first_columns(file: Path) -> Mapping[str, Any]:
    """Return the columns of a table: those of the first usable row of JSONL, or of the schema of parquet."""
    if file.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return dict.fromkeys(pq.read_schema(file).names)
        except (pa.ArrowException, OSError):
            return {}  # reading it names the damage
    rows = itertools.islice(read_rows(file, _columns_to_read), 100)
    return next((row.values for row in rows if row.problem is None), {})


def _hub_rows(data: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    dataset = HubDataset.parse(data)
    return hub_rows(
        dataset.repo, dataset.revision, folder=dataset.folder, split="train", streaming=True, columns=columns
    )


def _columns_to_read(schema: Any, file: Path) -> dict[str, bool]:
    """Return the columns of a parquet file that matter; a licence of an unsupported type counts as "not stated".

    Raises:
        DumpError: The columns are not those of conversations, or one occurs twice.
    """
    names = [name for name in _READ if name in schema.names]
    for name in names:
        if len(schema.get_all_field_indices(name)) > 1:
            raise DumpError(f"{printable(str(file))}: found the column {name} twice, expected it once")
    if not is_conversation(names):
        columns = ", ".join(map(printable, schema.names[:12])) or "none"
        raise DumpError(f"{printable(str(file))}: found columns {columns}, {_EXPECTED}")
    return {name: name not in LICENCE_COLUMNS or _holds_names(schema.field(name).type) for name in names}


def _holds_names(kind: Any) -> bool:
    return is_text(kind.value_type if is_list(kind) else kind)
