"""Rows of JSONL and parquet files as documents. A bad row is yielded with its problem; a damaged file is an error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from teacher_dump.corpus.readers.compressed import SUFFIXES, cannot_read, open_binary
from teacher_dump.corpus.readers.raw import COLUMNS, LICENCE, TEXT, Raw, bad, expected_text, printable, raw_of
from teacher_dump.errors import DumpError

ENDINGS = (".jsonl", *(f".jsonl{suffix}" for suffix in SUFFIXES), ".parquet")
"""What the names of tables end in."""
_BOM = b"\xef\xbb\xbf"
_BATCH_ROWS = 1000


def read_tables(files: Sequence[Path]) -> Iterator[Raw]:
    """Yield the documents of table files, in order.

    Raises:
        DumpError: Where a file is damaged, cut or cannot be read, or where no row of all files has a text.
    """
    usable = False
    first_problem = ""
    for file in files:
        for number, raw in enumerate(_parquet(file) if file.suffix == ".parquet" else _jsonl(file)):
            usable = usable or raw.problem is None
            if raw.problem is not None and not first_problem:
                kind = "row" if file.suffix == ".parquet" else "line"
                first_problem = f"{printable(str(file))} {kind} {number + 1}: {': '.join(filter(None, raw.problem))}"
            yield raw
    if first_problem and not usable:
        raise DumpError(f"{first_problem}; no row of --data has a text: expected one JSON object a line, or a table")


def _jsonl(file: Path) -> Iterator[Raw]:
    source = printable(file.name)
    number = 0
    with open_binary(file) as lines:
        for line in lines:
            if number == 0:
                line = line.removeprefix(_BOM)
            if line.strip():
                yield _parsed(line, number=number, source=source)
                number += 1


def _parsed(line: bytes, *, number: int, source: str) -> Raw:
    """Return the document of a line of JSON. Bytes that are no UTF-8 count where they are in a column that is read."""

    def refuse(why: str, detail: str) -> Raw:
        return bad(why, detail, source=source, path=str(number), content=line)

    try:
        row = json.loads(line.decode("utf-8", "surrogateescape"))
    except RecursionError:
        return refuse("not JSON", "nested too deeply")
    except ValueError as error:
        return refuse("not JSON", str(error))
    if not isinstance(row, dict):
        return refuse("not JSON", f"found {type(row).__name__}, expected an object")
    return raw_of(row, number=number, source=source)


def _parquet(file: Path) -> Iterator[Raw]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = printable(file.name)
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as table:
            columns = _columns(table.schema_arrow, file)
            # A licence in a form that is not read is one that is not stated, never a corpus without licences.
            not_stated = {n: None for n in LICENCE if n in table.schema_arrow.names and n not in columns}
            number = 0
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                values = {name: _values(batch.column(name)) for name in columns}
                for i in range(batch.num_rows):
                    row = {**not_stated, **{name: values[name][i] for name in columns}}
                    yield raw_of(row, number=number, source=source)
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


def _columns(schema: Any, file: Path) -> list[str]:
    """Return the columns to read; columns of other names are not decoded. Raises DumpError where none has a text."""
    names = [name for name in COLUMNS if name in schema.names]
    for name in names:
        if len(schema.get_all_field_indices(name)) > 1:
            raise DumpError(f"{printable(str(file))}: found the column {name} twice, expected it once")
    texts = [name for name in names if name in TEXT]
    if not texts:
        found = ", ".join(map(printable, schema.names[:12])) or "none"
        raise DumpError(f"{printable(str(file))}: found columns {found}, {expected_text()}")
    fit = [name for name in texts if _holds_text(schema.field(name).type)]
    if not fit:
        kind = schema.field(texts[0]).type
        raise DumpError(f"{printable(str(file))}: found {kind} in column {texts[0]}, expected strings")
    return [name for name in names if name in fit or (name not in TEXT and _holds_names(schema.field(name).type))]


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
    return _holds_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _values(column: Any) -> list[Any]:
    """Return a column's values, texts as bytes: one that is no UTF-8 concerns its own row only."""
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
