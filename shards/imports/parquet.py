"""Read lists of numbers from Parquet files, row by row, and refuse what is not such a list.

A message names the file, the row and the column. Rows are counted from 0 within their file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.errors import ShardError
from shards.format.chunk import Int64

ROWS_AT_ONCE = 8
"""Rows that are decoded together. A row of 8,192 tokens with 128 entries of each takes some megabytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberLists:
    """A cell: a list of numbers, or a list of such lists."""

    values: npt.NDArray[Any]
    """[E] all numbers, one list after another."""
    counts: Int64 | None
    """[P] numbers in each inner list; None for a list of numbers."""


Cells = Mapping[str, NumberLists]
"""The cells of a row by column."""


def parquet_files(path: Path) -> list[Path]:
    """Return a Parquet file, or those of a folder and its subfolders in the order of the numbers in their names.

    Raises:
        ShardError: If there is none.
    """
    if path.is_file():
        return [path]
    files = sorted(path.rglob("*.parquet"), key=lambda file: _natural(file.relative_to(path).as_posix()))
    if not files:
        is_saved = any(path.rglob("*.arrow")) if path.is_dir() else False
        remedy = "; it was saved by `datasets`: write it with Dataset.to_parquet first" if is_saved else ""
        raise ShardError(f"{path}: found no *.parquet, expected a Parquet file or a folder of them{remedy}")
    return files


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def column_names(file: Path) -> list[str]:
    """Return the names of the columns of a Parquet file.

    Raises:
        ShardError: If it is none, or was cut short.
    """
    return list(_open(file).schema_arrow.names)


def read_rows(file: Path, columns: Mapping[str, int]) -> Iterator[tuple[str, Cells]]:
    """Yield the rows of a Parquet file in order.

    Args:
        file: The file.
        columns: For each column its depth: 1 for a list of numbers, 2 for a list of lists.

    Yields:
        The name of the row for messages, and its cells.

    Raises:
        ShardError: If a column is missing or of another type, a value is missing, or the file is damaged.
    """
    parquet = _open(file)
    for name, depth in columns.items():
        _check_type(file, parquet.schema_arrow, name, depth)
    number = 0
    try:
        for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(columns)):
            for r in range(batch.num_rows):
                where = f"{file.name} row {number}"
                yield (
                    where,
                    {
                        name: _cell(batch.column(name), r, depth, f"{where}, column {name}")
                        for name, depth in columns.items()
                    },
                )
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f"{file} after row {number}: does not decode ({error}); fetch the file again") from None


def _open(file: Path) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ShardError(f"{file}: found no complete Parquet file ({reason}); fetch it again") from None


def _check_type(file: Path, schema: pa.Schema, name: str, depth: int) -> None:
    expected = "a list of numbers for each row" if depth == 1 else "a list of lists of numbers for each row"
    if name not in schema.names:
        raise ShardError(f"{file}: found the columns {', '.join(schema.names)}, expected {name}: {expected}")
    kind = schema.field(name).type
    inner = kind
    for _ in range(depth):
        if not _is_list(inner):
            break
        inner = inner.value_type
    else:
        if pa.types.is_integer(inner) or pa.types.is_floating(inner):
            return
    raise ShardError(f"{file}, column {name}: found the type {kind}, expected {expected}")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _cell(column: pa.Array, r: int, depth: int, where: str) -> NumberLists:
    numbers = _flat(column.slice(r, 1), where)
    counts = None
    if depth == 2:
        lengths = pc.list_value_length(numbers)
        numbers = _flat(numbers, where)
        counts = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
    if numbers.null_count:
        raise ShardError(f"{where}: found a missing value, expected numbers")
    return NumberLists(values=numbers.to_numpy(zero_copy_only=False), counts=counts)


def _flat(lists: pa.Array, where: str) -> pa.Array:
    if lists.null_count:
        raise ShardError(f"{where}: found a missing list, expected numbers")
    return lists.flatten()
