"""Tests of stored vectors: their codes, their columns, and what a reader without them says."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shards
from shards.edit.withdraw import withdraw
from shards.errors import CorruptShardError, ShardError
from shards.format.batch import build_batch, list_array
from shards.format.relations import (
    KINDS,
    RelationLayout,
    decode_relations,
    encode_relations,
    has_relations,
    relation_problems,
)
from shards.format.schema import Layout, canonical_json, file_schema
from shards.reports.summary import describe, summary
from shards.verify import verify
from tests.shards.conftest import LAYOUT, RELATIONS, make_relation_cache, make_row, with_random_vectors
from tests.shards.test_verify import with_changed_rows


def decoded(layout: RelationLayout, codes: Any, scales: Any) -> Any:
    columns = {"relation_codes": codes.ravel(), "relation_scales": scales.ravel()}
    lengths = {name: np.array([len(values)]) for name, values in columns.items()}
    return decode_relations(layout, columns, lengths, np.array([len(codes)]))


@given(st.integers(0, 2**32 - 1), st.floats(-12, 4))
@settings(max_examples=40, deadline=None)
def test_a_vector_is_wrong_by_at_most_half_a_step_and_encoded_again_to_the_same_codes(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = (np.exp(size) * rng.standard_t(3, (5, RELATIONS.numbers))).astype(np.float32)
    vectors = np.clip(vectors, -3e4, 3e4)
    codes, scales = encode_relations(RELATIONS, vectors)
    relations = decoded(RELATIONS, codes, scales)
    assert list(relation_problems(relations)) == []
    start = 0
    for kind, width in zip(relations.vectors(), RELATIONS.stored_widths, strict=True):
        original = vectors[:, start : start + RELATIONS.heads * width].reshape(5, RELATIONS.heads, width)
        start += RELATIONS.heads * width
        # A step is at most 2^(1/8) times the largest number over 127.49, or the least step there is.
        step = np.maximum(2 ** (1 / 8) * np.abs(original).max(2, keepdims=True) / 127.49, 2.0**-24)
        assert (np.abs(kind - original) <= 0.5001 * step).all()
    flat = np.concatenate([kind.reshape(5, -1) for kind in relations.vectors()], 1)
    again = encode_relations(RELATIONS, flat)
    assert np.array_equal(again[0], codes)
    assert np.array_equal(again[1], scales)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_numbers_that_have_no_code_are_refused(value: float) -> None:
    vectors = np.ones((2, RELATIONS.numbers), np.float32)
    vectors[1, 3] = value
    with pytest.raises(ShardError, match="relations: found"):
        encode_relations(RELATIONS, vectors)


def test_no_position_is_encoded_to_nothing() -> None:
    codes, scales = encode_relations(RELATIONS, np.zeros((0, RELATIONS.numbers), np.float32))
    assert (codes.size, scales.size) == (0, 0)


@pytest.mark.parametrize(
    "change", [{"heads": 0}, {"dims": 0}, {"layer": -1}, {"seed": 1.5}, {"widths": (1, 2)}, {"widths": (1, 2, 0)}]
)
def test_a_layout_out_of_range_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(ShardError, match=f"relations {next(iter(change))}: found"):
        RelationLayout.from_dict({**RELATIONS.to_dict(), **change})


@pytest.mark.parametrize("damage", ["missing", "unknown", "no object"])
def test_a_damaged_layout_is_refused_by_name(damage: str) -> None:
    data: Any = RELATIONS.to_dict()
    if damage == "missing":
        del data["heads"]
    data = {"missing": data, "unknown": {**data, "more": 1}, "no object": 3}[damage]
    with pytest.raises(ShardError, match="relations"):
        Layout.from_dict({**LAYOUT.to_dict(), "relations": data}, version=1)


def test_the_share_of_documents_is_chosen_by_their_digest() -> None:
    documents = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(2000)]
    chosen = {d for d in documents if has_relations(d, share=0.25)}
    assert 420 <= len(chosen) <= 580
    assert chosen <= {d for d in documents if has_relations(d, share=0.5)}
    assert all(has_relations(d, share=1.0) for d in documents)
    assert not any(has_relations(d, share=0.0) for d in documents)


@pytest.mark.parametrize("version", [1, 2])
def test_rows_have_their_vectors_or_none(version: int, tmp_path: Path) -> None:
    rows = make_relation_cache(tmp_path, version=version)
    cache = shards.open(tmp_path)
    assert verify(cache) == []
    found = [chunk.row(r).relations for chunk in cache for r in range(len(chunk.rows))]
    assert len(found) == len(rows)
    for row, relations in zip(rows, found, strict=True):
        assert relations is not None
        expected = 0 if row.relations is None else len(row.labels)
        assert [len(kind) for kind in relations.vectors()] == [expected] * len(KINDS)
        if row.relations is not None and expected > 1:
            first, size = relations.vectors()[0].reshape(expected, -1), RELATIONS.heads * RELATIONS.stored_widths[0]
            scale = np.abs(row.relations[:, :size]).max()
            assert np.abs(first - row.relations[:, :size]).max() <= scale / 200
    facts = summary(cache)
    with_relations = [row for row in rows if row.relations is not None]
    assert facts["layout"]["relations"] == RELATIONS.to_dict()
    assert "relations  layer 3, 2 heads of 6, 4, 3 numbers projected to 4, 4, 3" in describe(facts)
    assert f"{RELATIONS.bytes_per_position} bytes each" not in describe(facts)  # the manifest of a test has no report
    assert sum(len(row.labels) for row in with_relations) == sum(len(r.codes) for r in found if r is not None)


def test_a_reader_refuses_a_group_that_it_does_not_know_by_name(relation_folder: Path) -> None:
    path = relation_folder / "manifest.json"
    manifest = shards.open(relation_folder).manifest
    body = manifest.body()
    # To this release, a group that it does not know is what relations are to the releases before them.
    body["layout"]["hidden_states"] = body["layout"].pop("relations")
    digest = hashlib.sha256(canonical_json(body)).hexdigest()
    path.write_text(json.dumps({"sha256": digest, **body}))
    with pytest.raises(ShardError, match=r"hidden_states.*expected the fields of format version 1"):
        shards.open(relation_folder)


def test_a_cache_without_relations_does_not_mention_them() -> None:
    assert "relations" not in LAYOUT.to_dict()
    assert not [name for name in file_schema(LAYOUT, task="0", fingerprint="f").names if "relation" in name]


def test_a_row_with_vectors_needs_a_layout_for_them() -> None:
    rng = np.random.default_rng(0)
    row = with_random_vectors(make_row(rng, tokens=9), rng)
    schema = file_schema(LAYOUT, task="0", fingerprint="f")
    with pytest.raises(ShardError, match="relations: found vectors, expected none"):
        build_batch(LAYOUT, [row], schema)
    layout = replace(LAYOUT, relations=RELATIONS)
    assert row.relations is not None
    with pytest.raises(ShardError, match="relations: found 7 positions, expected 8 or none"):
        build_batch(
            layout, [replace(row, relations=row.relations[:-1])], file_schema(layout, task="0", fingerprint="f")
        )


@pytest.mark.parametrize("name", ["relation_codes", "relation_scales"])
def test_columns_that_contradict_each_other_are_corrupt(name: str) -> None:
    columns: dict[str, Any] = {
        "relation_codes": np.zeros(2 * 22, np.int8),
        "relation_scales": np.zeros(2 * 6, np.uint8),
    }
    lengths = {key: np.array([len(values)]) for key, values in columns.items()}
    assert len(decode_relations(RELATIONS, columns, lengths, np.array([2])).codes) == 2
    lengths[name] = lengths[name] - 1
    with pytest.raises(CorruptShardError, match=name):
        decode_relations(RELATIONS, columns, lengths, np.array([2]))
    with pytest.raises(CorruptShardError, match="relation_codes"):  # a part of the positions
        decode_relations(RELATIONS, columns, {**lengths, name: lengths[name] + 1}, np.array([3]))


def test_impossible_codes_are_named() -> None:
    codes, scales = encode_relations(RELATIONS, np.ones((3, RELATIONS.numbers), np.float32))
    codes[1, 0] = -128
    assert [p.partition(":")[0] for p in relation_problems(decoded(RELATIONS, codes, scales))] == ["relation_codes"]
    codes[1, : RELATIONS.stored_widths[0]] = 50
    (problem,) = relation_problems(decoded(RELATIONS, codes, scales))
    assert "below 117" in problem


def test_verify_finds_damaged_and_impossible_vectors(relation_folder: Path, tmp_path: Path) -> None:
    def impossible(batch: pa.RecordBatch) -> pa.RecordBatch:
        column = batch.schema.get_field_index("relation_codes")
        field, lists = batch.schema.field(column), batch.column(column)
        codes = lists.flatten().to_numpy().copy()
        codes[:] = 50
        return batch.set_column(column, field, list_array(field, codes, lists.offsets.to_numpy().astype(np.int64)))

    problems = verify(with_changed_rows(relation_folder, impossible))
    assert problems
    assert all("relation_codes: a vector whose largest code is below 117" in problem for problem in problems)

    def shortened(batch: pa.RecordBatch) -> pa.RecordBatch:
        column = batch.schema.get_field_index("relation_scales")
        scales = [values[:-1] for values in batch.column(column).to_pylist()]
        return batch.set_column(column, batch.schema.field(column), pa.array(scales, batch.schema.field(column).type))

    make_relation_cache(tmp_path / "other")
    problems = verify(with_changed_rows(tmp_path / "other", shortened))
    assert any("relation_scales: found rows of" in problem for problem in problems)


def test_editing_keeps_the_vectors_of_other_rows(relation_folder: Path, tmp_path: Path) -> None:
    cache = shards.open(relation_folder)
    rows = [chunk.row(r) for chunk in cache for r in range(len(chunk.rows))]
    result = withdraw(cache, [rows[0].rows[0].document], tmp_path / "out")
    assert verify(result.cache) == []
    left = {chunk.rows[r].document: chunk.row(r) for chunk in result.cache for r in range(len(chunk.rows))}
    for row in rows[1:]:
        assert row.relations is not None
        kept = left[row.rows[0].document].relations
        assert kept is not None
        assert np.array_equal(kept.codes, row.relations.codes)
