"""Reader of JSONL and parquet tables. A bad row becomes a document with a problem; a damaged file is an error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from teacher_dump.corpus.document import RawDocument
from teacher_dump.corpus.readers.compressed import SUFFIXES, cannot_read, open_binary
from teacher_dump.corpus.readers.rows import (
    COLUMNS,
    EXPECTED_TEXT,
    LICENCE_COLUMNS,
    TEXT_COLUMNS,
    document_from_row,
    printable,
    unusable,
)
from teacher_dump.errors import DumpError

TABLE_SUFFIXES = (".jsonl", *(f".jsonl{suffix}" for suffix in SUFFIXES), ".parquet")
"""Suffixes of the names of tables."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BATCH_ROWS = 1000


def read_tables(files: Sequence[Path]) -> Iterator[RawDocument]:
    """Yield the documents of table files, in order.

    Raises:
        DumpError: A file is damaged, truncated or unreadable, or no row of any file has a text.
    """
    usable = False
    first_problem = ""
    for file in files:
        for number, raw in enumerate(_read_parquet(file) if file.suffix == ".parquet" else _read_jsonl(file)):
            usable = usable or raw.problem is None
            if raw.problem is not None and not first_problem:
                kind = "row" if file.suffix == ".parquet" else "line"
                first_problem = f"{printable(str(file))} {kind} {number + 1}: {': '.join(filter(None, raw.problem))}"
            yield raw
    if first_problem and not usable:
        raise DumpError(f"{first_problem}; no row of --data has a text: expected one JSON object a line, or a table")


def _read_jsonl(file: Path) -> Iterator[RawDocument]:
    source = printable(file.name)
    number = 0
    with open_binary(file) as lines:
        for line in lines:
            if number == 0:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if line.strip():
                yield _parse_line(line, number=number, source=source)
                number += 1


def _parse_line(line: bytes, *, number: int, source: str) -> RawDocument:
    """Return the document of a line of JSON. Bytes that are not UTF-8 matter only in the columns that are read."""

    def not_json(detail: str) -> RawDocument:
        return unusable("not JSON", detail, source=source, path=str(number), content=line)

    try:
        row = json.loads(line.decode("utf-8", "surrogateescape"))
    except RecursionError:
        return not_json("nested too deeply")
    except ValueError as error:
        return not_json(str(error))
    if not isinstance(row, dict):
        return not_json(f"found {type(row).__name__}, expected an object")
    return document_from_row(row, number=number, source=source)


def _read_parquet(file: Path) -> Iterator[RawDocument]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = printable(file.name)
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as table:
            columns = _columns_to_read(table.schema_arrow, file)
            # A licence column of an unsupported type counts as "not stated", never as a corpus without licences.
            not_stated = {n: None for n in LICENCE_COLUMNS if n in table.schema_arrow.names and n not in columns}
            number = 0
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                values = {name: _to_list(batch.column(name)) for name in columns}
                for i in range(batch.num_rows):
                    row = {**not_stated, **{name: values[name][i] for name in columns}}
                    yield document_from_row(row, number=number, source=source)
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


def _columns_to_read(schema: Any, file: Path) -> list[str]:
    """Return the columns to decode.

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
    texts = [name for name in candidates if _holds_text(schema.field(name).type)]
    if not texts:
        kind = schema.field(candidates[0]).type
        raise DumpError(f"{printable(str(file))}: found {kind} in column {candidates[0]}, expected strings")
    return [n for n in names if n in texts or (n not in TEXT_COLUMNS and _holds_names(schema.field(n).type))]


def _holds_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    strings = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())
    return kind in (*strings, pa.null())


def _holds_names(kind: Any) -> bool:
    import pyarrow as pa

    if _is_list(kind):
        kind = kind.value_type
    return bool(_holds_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _to_list(column: Any) -> list[Any]:
    """Return a column's values, texts as bytes: a text that is not UTF-8 affects only its own row."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if _is_list(kind):
        if _holds_text(kind.value_type):
            column = column.cast(pa.large_list(pa.large_binary()))
    elif _holds_text(kind):
        column = column.cast(pa.large_binary())
    values: list[Any] = column.to_pylist()
    return values
