"""Reader of JSONL and parquet tables. A bad row becomes a document with a problem; a damaged file is an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from teacher_dump.corpus.document import RawDocument
from teacher_dump.corpus.readers.rows import (
    COLUMNS,
    EXPECTED_TEXT,
    LICENCE_COLUMNS,
    TEXT_COLUMNS,
    document_from_row,
    printable,
    unusable,
)
from teacher_dump.corpus.readers.table_rows import TableRow, is_list, is_text, place, read_rows
from teacher_dump.errors import DumpError


def read_tables(files: Sequence[Path]) -> Iterator[RawDocument]:
    """Yield the documents of table files, in order.

    Raises:
        DumpError: A file is damaged, truncated or unreadable, or no row of any file has a text.
    """
    usable = False
    first_problem = ""
    for file in files:
        for row in read_rows(file, _columns_to_read):
            raw = _document(row)
            usable = usable or raw.problem is None
            if raw.problem is not None and not first_problem:
                first_problem = f"{place(file, row)}: {': '.join(filter(None, raw.problem))}"
            yield raw
    if first_problem and not usable:
        raise DumpError(f"{first_problem}; no row of --data has a text: expected one JSON object a line, or a table")


def _document(row: TableRow) -> RawDocument:
    if row.problem is not None:
        return unusable(*row.problem, source=row.source, path=str(row.number), content=row.content)
    return document_from_row(row.values, number=row.number, source=row.source)


def _columns_to_read(schema: Any, file: Path) -> dict[str, bool]:
    """Return the columns that matter, and whether they are decoded.

    A licence column of an unsupported type counts as "not stated", never as a corpus without licences.

    Raises:
        DumpError: No column holds a text, or a column occurs twice.
    """
    names = [name for name in COLUMNS if name in schema.names]
    for name in names:
        if len(schema.get_all_field_indices(name)) > 1:
            raise DumpError(f"{printable(str(file))}: found the column {name} twice, expected it once")
    candidates = [name for name in names if name in TEXT_COLUMNS]
    if not candidates:
        columns = ", ".join(map(printable, schema.names[:12])) or "none"
        raise DumpError(f"{printable(str(file))}: found columns {columns}, {EXPECTED_TEXT}")
    texts = [name for name in candidates if is_text(schema.field(name).type)]
    if not texts:
        kind = schema.field(candidates[0]).type
        raise DumpError(f"{printable(str(file))}: found {kind} in column {candidates[0]}, expected strings")
    choice = {n: n in texts or (n not in TEXT_COLUMNS and _holds_names(schema.field(n).type)) for n in names}
    return {n: is_decoded for n, is_decoded in choice.items() if is_decoded or n in LICENCE_COLUMNS}


def _holds_names(kind: Any) -> bool:
    import pyarrow as pa

    if is_list(kind):
        kind = kind.value_type
    return bool(is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))
