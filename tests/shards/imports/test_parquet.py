"""Tests of reading lists of numbers from Parquet files."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import ShardError
from shards.imports.parquet import ROWS_AT_ONCE, column_names, parquet_files, read_rows
from tests.shards.imports.conftest import write_parquet

COLUMNS = {"a": 1, "b": 2}


def test_cells_are_the_lists_that_were_written(tmp_path: Path) -> None:
    rows = [{"a": list(range(n)), "b": [[float(n)] * k for k in range(n)], "c": "x"} for n in range(3 * ROWS_AT_ONCE)]
    file = write_parquet(tmp_path / "f.parquet", rows)
    assert column_names(file) == ["a", "b", "c"]
    for n, (where, cells) in enumerate(read_rows(file, COLUMNS)):
        assert where == f"f.parquet row {n}"
        assert cells["a"].values.tolist() == rows[n]["a"]
        assert cells["a"].counts is None
        assert cells["b"].counts is not None
        assert cells["b"].counts.tolist() == list(range(n))
        assert cells["b"].values.tolist() == [float(n)] * sum(range(n))


@pytest.mark.parametrize("inner", [pa.large_list(pa.uint16()), pa.list_(pa.uint16(), 2)])
def test_lists_of_other_kinds_are_read(inner: pa.DataType, tmp_path: Path) -> None:
    table = pa.table({"b": pa.array([[[1, 2], [3, 4]], [[5, 6]]], pa.list_(inner))})
    pq.write_table(table, tmp_path / "f.parquet")
    found = [cells["b"] for _, cells in read_rows(tmp_path / "f.parquet", {"b": 2})]
    assert [cell.values.tolist() for cell in found] == [[1, 2, 3, 4], [5, 6]]
    assert [cell.counts.tolist() for cell in found if cell.counts is not None] == [[2, 2], [2]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": [1]}, "found the columns a, expected b: a list of lists of numbers for each row"),
        ({"a": 1, "b": [[1.0]]}, "column a: found the type int64, expected a list of numbers"),
        ({"a": [1], "b": [1.0]}, "column b: found the type list<element: double>, expected a list of lists"),
        ({"a": ["x"], "b": [[1.0]]}, "column a: found the type list<element: string>"),
        ({"a": [1, None], "b": [[1.0]]}, "row 1, column a: found a missing value"),
        ({"a": None, "b": [[1.0]]}, "row 1, column a: found a missing list"),
        ({"a": [1], "b": [[1.0], None]}, "row 1, column b: found a missing list"),
        ({"a": [1], "b": [[1.0, None]]}, "row 1, column b: found a missing value"),
    ],
)
def test_what_is_no_such_list_is_refused(row: dict[str, object], message: str, tmp_path: Path) -> None:
    sound = {"a": [1], "b": [[1.0]]}
    file = write_parquet(tmp_path / "f.parquet", [row] if "row 1" not in message else [sound, row])
    with pytest.raises(ShardError) as refused:
        list(read_rows(file, COLUMNS))
    assert message in str(refused.value)


def test_truncated_and_damaged_files_are_refused(tmp_path: Path) -> None:
    rows = [{"a": np.arange(500) * n, "b": [[1.0]]} for n in range(40)]
    raw = write_parquet(tmp_path / "f.parquet", rows).read_bytes()
    rng = np.random.default_rng(0)
    for size in (0, 3, 100, len(raw) // 2, len(raw) - 1):
        (tmp_path / "cut.parquet").write_bytes(raw[:size])
        with pytest.raises(ShardError, match=r"cut\.parquet: found no complete Parquet file"):
            list(read_rows(tmp_path / "cut.parquet", COLUMNS))
    for _ in range(60):
        damaged = bytearray(raw)
        damaged[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
        (tmp_path / "bad.parquet").write_bytes(damaged)
        with contextlib.suppress(ShardError):  # Parquet has no digests: some damage is only other numbers
            list(read_rows(tmp_path / "bad.parquet", COLUMNS))


def test_files_of_a_folder_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for n in (10, 9, 1):
        write_parquet(tmp_path / "train" / f"data_{n}.parquet", [{"a": [1]}])
    assert [file.name for file in parquet_files(tmp_path)] == ["data_1.parquet", "data_9.parquet", "data_10.parquet"]


def test_a_folder_without_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"found no \*\.parquet, expected a Parquet file or a folder of them$"):
        parquet_files(tmp_path)
    (tmp_path / "data-00000.arrow").write_bytes(b"")
    with pytest.raises(ShardError, match=r"write it with Dataset\.to_parquet first"):
        parquet_files(tmp_path)
