"""Tests of the layouts that can be imported: their columns, and rows whose columns contradict each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.cli import main
from shards.errors import ShardError
from shards.imports.layouts import LAYOUTS, SourceLayout, distillkit_layout, top_k_layout
from shards.imports.parquet import NumberLists, read_rows
from shards.imports.top_k import StoredRow
from tests.shards.imports.conftest import VOCAB, make_top_k, plain_row, write_parquet
from tests.shards.imports.distillkit_writer import compressed_row

ROW = make_top_k(np.random.default_rng(0), length=6, k=3)
SETTINGS = {"d": VOCAB, "k": 3, "exact_k": 3, "residual_bins": [], "delta_encoding": False}


def read(tmp_path: Path, row: dict[str, Any], *, layout: str = "top-k-parquet") -> StoredRow:
    file = write_parquet(tmp_path / "f.parquet", [row])
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    compression = tmp_path / "settings.json" if layout == "distillkit" else None
    found = LAYOUTS[layout](file, {}, compression)
    ((where, cells),) = read_rows(file, found.depths)
    return found.row(where, cells)


def test_the_choices_of_the_command_line_are_the_table() -> None:
    option = next(p for p in main.commands["import"].params if p.name == "layout")
    assert list(option.type.choices) == list(LAYOUTS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_has_the_entries_that_were_written(layout: str, tmp_path: Path) -> None:
    row = plain_row(ROW) if layout == "top-k-parquet" else compressed_row(ROW.tokens, ROW.ids, ROW.logprobs, SETTINGS)
    stored = read(tmp_path, row, layout=layout)
    assert stored.counts.tolist() == [3] * 5
    assert stored.ids.tolist() == ROW.ids.ravel().tolist()
    np.testing.assert_allclose(stored.logprobs, ROW.logprobs.ravel(), rtol=1e-6)
    assert stored.mask is None


def test_lists_may_have_different_lengths(tmp_path: Path) -> None:
    ids, logprobs = [[1], [2, 3], [4]], [[-0.1], [-1.0, -2.0], [-3.0]]
    stored = read(tmp_path, {"input_ids": [9, 1, 2, 3], "token_ids": ids, "logprobs": logprobs})
    assert (stored.counts.tolist(), stored.ids.tolist()) == ([1, 2, 1], [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logprobs": ROW.logprobs[:4]}, "column logprobs: found 4 values, expected 5 lists, as token_ids"),
        ({"logprobs": [*ROW.logprobs[:4].tolist(), [-1.0]]}, "column logprobs, position 4: found 1 values, expected 3"),
        ({"token_ids": ROW.ids + 0.5}, "column token_ids: found numbers with a fraction"),
        ({"input_ids": ROW.tokens + 0.5}, "column input_ids: found numbers with a fraction"),
        ({"attention_mask": [1] * 5}, "column attention_mask: found 5 values, expected 6, one for each token"),
        ({"tail_mass": [0.1] * 6}, "column tail_mass: found 6 values, expected 5, one for each list of ids"),
        ({"labels": [-100, *ROW.tokens[1:].tolist()]}, "column labels, token 0: found -100, expected 256, the token"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"^f\.parquet row 0, ") as refused:
        read(tmp_path, plain_row(ROW) | change)
    assert message in str(refused.value)


def test_numbers_of_64_bits_without_sign_are_compared_as_they_are() -> None:
    layout = SourceLayout(columns={kind: kind for kind in ("tokens", "ids", "logprobs")})
    huge = NumberLists(values=np.array([2**64 - 1], np.uint64), counts=None)
    with pytest.raises(ShardError, match="row 0, column tokens: found 18446744073709551615, expected at most"):
        layout.row("row 0", dict.fromkeys(layout.columns, huge))


def test_labels_of_padding_may_be_left_out(tmp_path: Path) -> None:
    labels, mask = [*ROW.tokens[:5].tolist(), -100], [1, 1, 1, 1, 1, 0]
    assert read(tmp_path, plain_row(ROW, labels=labels, attention_mask=mask)).mask is not None


def test_bytes_of_another_compression_are_refused(tmp_path: Path) -> None:
    row = compressed_row(ROW.tokens, ROW.ids, ROW.logprobs, SETTINGS)
    row["compressed_logprobs"][2] = row["compressed_logprobs"][2][:-1]
    with pytest.raises(ShardError, match="column compressed_logprobs, position 2: found 11 bytes, expected 12 under"):
        read(tmp_path, row, layout="distillkit")
    row = compressed_row(ROW.tokens, ROW.ids, ROW.logprobs, SETTINGS)
    row["bytepacked_indices"][1][0] = 256
    with pytest.raises(ShardError, match="column bytepacked_indices: found numbers outside 0 to 255"):
        read(tmp_path, row, layout="distillkit")


def test_options_of_the_other_layout_are_refused(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "f.parquet", [plain_row(ROW)])
    with pytest.raises(ShardError, match=r"--compression .*: found it with --from top-k-parquet"):
        top_k_layout(file, {}, tmp_path / "settings.json")
    with pytest.raises(ShardError, match="--columns: found it with --from distillkit"):
        distillkit_layout(file, {"ids": "x"}, None)
    with pytest.raises(ShardError, match="--columns: found wrong, expected some of tokens, ids, logprobs"):
        top_k_layout(file, {"wrong": "x"}, None)


def test_the_legacy_compression_is_refused_by_name(tmp_path: Path) -> None:
    row = {"input_ids": [1], "packed_indices": [[1]], "exact_values": [[1.0]], "coeffs": [[1.0]]}
    with pytest.raises(ShardError, match="DistillKit's legacy compression, which is not read"):
        distillkit_layout(write_parquet(tmp_path / "f.parquet", [row]), {}, None)


@pytest.mark.parametrize("column", ["input_ids", "token_ids", "logprobs"])
def test_a_missing_column_is_named(column: str, tmp_path: Path) -> None:
    row = plain_row(ROW)
    del row[column]
    with pytest.raises(ShardError, match=f"f.parquet: found the columns .*, expected {column}: "):
        read(tmp_path, row)
