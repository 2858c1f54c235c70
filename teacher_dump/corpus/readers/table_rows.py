"""Reader of the rows of JSONL and parquet files: values by column. A bad line is a row with a problem."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teacher_dump.corpus.document import Drop
from teacher_dump.corpus.readers.compressed import SUFFIXES, cannot_read, open_binary
from teacher_dump.corpus.readers.rows import printable
from teacher_dump.errors import DumpError

TABLE_SUFFIXES = (".jsonl", *(f".jsonl{suffix}" for suffix in SUFFIXES), ".parquet")
"""Suffixes of the names of tables."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BATCH_ROWS = 1000

ColumnChoice = Callable[[Any, Path], Mapping[str, bool]]
"""Function from the Arrow schema and the path of a parquet file to its columns that matter: true if a column is
decoded, false if all its values count as null."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One row of a table."""

    number: int
    """From 0; blank lines are not counted."""
    source: str
    """Name of the file, printable."""
    values: dict[str, Any]
    """Values by column. Texts of parquet are bytes; those of JSON hold surrogates for bytes that are not UTF-8."""
    problem: Drop | None = None
    """Why the row has no values, None where it has."""
    content: bytes = b""
    """The line of a row with a problem."""


def read_rows(file: Path, columns: ColumnChoice) -> Iterator[TableRow]:
    """Yield the rows of a table, in order.

    Args:
        file: A file with one of TABLE_SUFFIXES.
        columns: Selects the columns of a parquet file. JSONL is read whole.

    Raises:
        DumpError: The file is damaged, truncated or unreadable.
    """
    return _read_parquet(file, columns) if file.suffix == ".parquet" else _read_jsonl(file)


def place(file: Path, row: TableRow) -> str:
    """Return the name of a row for messages; lines and rows are counted from 1."""
    return f"{printable(str(file))} {'row' if file.suffix == '.parquet' else 'line'} {row.number + 1}"


def is_text(kind: Any) -> bool:
    """Return whether an Arrow type holds texts, or nothing but nulls."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    strings = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())
    return kind in (*strings, pa.null())


def is_list(kind: Any) -> bool:
    """Return whether an Arrow type is a list."""
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _read_jsonl(file: Path) -> Iterator[TableRow]:
    source = printable(file.name)
    number = 0
    with open_binary(file) as lines:
        for line in lines:
            if number == 0:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if line.strip():
                yield _parse_line(line, number=number, source=source)
                number += 1


def _parse_line(line: bytes, *, number: int, source: str) -> TableRow:
    """Return the row of a line of JSON. Bytes that are not UTF-8 matter only in the columns that are read."""

    def not_json(detail: str) -> TableRow:
        problem = Drop("not JSON", detail)
        return TableRow(number=number, source=source, values={}, problem=problem, content=line)

    try:
        values = json.loads(line.decode("utf-8", "surrogateescape"))
    except RecursionError:
        return not_json("nested too deeply")
    except ValueError as error:
        return not_json(str(error))
    if not isinstance(values, dict):
        return not_json(f"found {type(values).__name__}, expected an object")
    return TableRow(number=number, source=source, values=values)


def _read_parquet(file: Path, columns: ColumnChoice) -> Iterator[TableRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = printable(file.name)
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as table:
            choice = columns(table.schema_arrow, file)
            decoded = [name for name, is_decoded in choice.items() if is_decoded]
            nulls: dict[str, Any] = {name: None for name, is_decoded in choice.items() if not is_decoded}
            number = 0
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=decoded):
                values = {name: _to_list(batch.column(name)) for name in decoded}
                for i in range(batch.num_rows):
                    row = {**nulls, **{name: values[name][i] for name in decoded}}
                    yield TableRow(number=number, source=source, values=row)
                    number += 1
    except pa.ArrowException as error:
        raise DumpError(
            f"{printable(str(file))}: not a readable parquet file ({error}); expected a whole one: fetch or write it "
            "again"
        ) from None
    except OSError as error:
        if error.errno is not None:
            raise cannot_read(file, error) from None
        raise DumpError(
            f"{printable(str(file))}: damaged parquet data ({error}); expected a whole file: fetch or write it again"
        ) from None


def _to_list(column: Any) -> list[Any]:
    """Return a column's values, texts as bytes: a text that is not UTF-8 affects only its own row."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values: list[Any] = column.cast(_with_bytes(column.type)).to_pylist()
    return values


def _with_bytes(kind: Any) -> Any:
    """Return an Arrow type with bytes in place of the texts in it."""
    import pyarrow as pa

    if is_list(kind):
        return pa.large_list(_with_bytes(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(kind.field(i).name, _with_bytes(kind.field(i).type)) for i in range(kind.num_fields)])
    return pa.large_binary() if is_text(kind) else kind
