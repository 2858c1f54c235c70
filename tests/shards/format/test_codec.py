"""Tests of encoding and decoding: exact ids, bounded quantisation errors, refused input."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import CorruptShardError, ShardError
from shards.format.batch import Row, build_batch, decode_chunk
from shards.format.chunk import Chunk
from shards.format.invariants import chunk_problems
from shards.format.schema import Layout, file_schema
from tests.shards.conftest import LAYOUT, RESPONSES, make_responses, make_row


def round_trip(rows: list[Row], layout: Layout = LAYOUT) -> Chunk:
    batch, _ = build_batch(layout, rows, file_schema(layout, task="t", fingerprint="f"))
    return decode_chunk(layout, batch.serialize().to_pybytes(), where="test")


def with_head(probs: list[list[float]], *, realised: list[float] | None = None, vocab: int = 1000) -> Row:
    """Return a row with the given head probabilities, no draws, and id 999 realised everywhere."""
    positions = len(probs)
    base = make_row(np.random.default_rng(0), tokens=positions + 1)
    counts = np.array([len(p) for p in probs])
    return Row(
        **{name: getattr(base, name) for name in ("info", "whitespace_logp", "entropy", "log_z")},
        tokens=np.full(positions + 1, vocab - 1, np.int32),
        head_count=counts,
        head_ids=np.concatenate([np.arange(len(p)) for p in probs]).astype(np.int32),
        head_probs=np.concatenate([np.array(p, np.float32) for p in probs]),
        draw_count=np.zeros(positions, np.int64),
        draw_ids=np.empty(0, np.int32),
        label_logp=np.array(realised or [-5.0] * positions, np.float32),
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_ids_come_back_exactly_and_every_position_sums_to_one(seed: int, num_rows: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [make_row(rng, tokens=int(rng.integers(2, 30))) for _ in range(num_rows)]
    chunk = round_trip(rows)
    for name in ("tokens", "head_ids", "draw_ids"):
        assert np.array_equal(getattr(chunk, name), np.concatenate([getattr(r, name) for r in rows]))
    assert np.array_equal(np.diff(chunk.head_starts), np.concatenate([r.head_count for r in rows]))
    assert np.array_equal(np.diff(chunk.draw_starts), np.concatenate([r.draw_count for r in rows]))
    for p in range(len(chunk.tail_mass)):
        total = np.float32(chunk.tail_mass[p])
        for q in chunk.head_probs[chunk.head_starts[p] : chunk.head_starts[p + 1]]:
            total = np.float32(total + q)
        assert total == 1
    assert [r.info for r in rows] == list(chunk.rows)
    assert not list(chunk_problems(chunk, LAYOUT.vocab_size))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_positions_begin_after_the_context_of_each_row(seed: int, num_prompts: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [row for _ in range(num_prompts) for row in make_responses(rng)]
    chunk = round_trip(rows, RESPONSES)
    assert [r.info for r in rows] == list(chunk.rows)
    assert chunk.labels.tolist() == [t for r in rows for t in r.tokens[r.info.context :].tolist()]
    assert chunk.position_starts[-1] == len(chunk.tail_mass) == len(chunk.labels)
    assert not list(chunk_problems(chunk, RESPONSES.vocab_size))
    for r, row in enumerate(rows):
        alone = chunk.row(r)
        assert len(alone.tail_mass) == len(row.tokens) - row.info.context == len(row.labels)
        assert np.array_equal(alone.tokens, row.tokens)
        assert np.array_equal(alone.head_ids, row.head_ids)
        assert np.array_equal(alone.draw_ids, row.draw_ids)
        start, stop = chunk.position_starts[r : r + 2]
        assert np.array_equal(alone.entropy, chunk.entropy[start:stop])


def test_a_context_of_one_has_the_codes_of_version_1() -> None:
    row = make_row(np.random.default_rng(0))
    old, _ = build_batch(LAYOUT, [row], file_schema(LAYOUT, task="t", fingerprint="f"))
    new, _ = build_batch(RESPONSES, [row], file_schema(RESPONSES, task="t", fingerprint="f"))
    assert set(new.schema.names) - set(old.schema.names) == {"context", "messages"}
    for name in set(old.schema.names) - {"row_sha256"}:
        assert new.column(name).equals(old.column(name)), name


@pytest.mark.parametrize(
    ("layout", "change", "said"),
    [
        (RESPONSES, {"context": 0}, "context: found 0 in a row of 40 tokens"),
        (RESPONSES, {"context": 41}, "context: found 41 in a row of 40 tokens"),
        (RESPONSES, {"context": 4}, "found 39 positions, expected 36"),
        (LAYOUT, {"context": 4}, "rows with a context need version 2"),
        (LAYOUT, {"messages": "[]"}, "rows with a context need version 2"),
    ],
)
def test_a_context_that_does_not_fit_is_refused(layout: Layout, change: dict[str, Any], said: str) -> None:
    row = make_row(np.random.default_rng(0))
    with pytest.raises(ShardError, match=said):
        round_trip([replace(row, info=replace(row.info, **change))], layout)


@pytest.mark.parametrize("context", [0, 41, 2**32 - 1])
def test_a_stored_context_outside_its_row_is_refused(context: int) -> None:
    rows = [make_row(np.random.default_rng(0), layout=RESPONSES, context=5)]
    batch, _ = build_batch(RESPONSES, rows, file_schema(RESPONSES, task="t", fingerprint="f"))
    column = batch.schema.get_field_index("context")
    wrong = batch.set_column(column, batch.schema.field(column), pa.array([context], pa.uint32()))
    with pytest.raises(CorruptShardError, match="context: found a row of fewer tokens"):
        decode_chunk(RESPONSES, wrong.serialize().to_pybytes(), where="test")


def test_quantised_fields_stay_within_the_steps_that_the_format_promises() -> None:
    rng = np.random.default_rng(1)
    rows = [make_row(rng) for _ in range(8)]
    chunk = round_trip(rows)

    def all_rows(name: str) -> np.ndarray:
        return np.concatenate([getattr(r, name) for r in rows])

    # Even steps in asin(sqrt(p)): at most sin(2 theta) x half a step; the largest has the sum of its position's errors.
    assert np.abs(chunk.head_probs - all_rows("head_probs")).max() < 0.012
    assert np.abs(chunk.log_z - all_rows("log_z")).max() <= LAYOUT.log_z_step / 2 + 1e-6
    step = 2 * np.sqrt(all_rows("entropy") * LAYOUT.entropy_max) / 255 + LAYOUT.entropy_max / 255**2
    assert (np.abs(chunk.entropy - all_rows("entropy")) <= step).all()
    white = np.abs(np.exp(chunk.whitespace_logp) - np.exp(all_rows("whitespace_logp")))
    assert white.max() < 0.0035
    owner = np.repeat(np.arange(len(chunk.tail_mass)), np.diff(chunk.head_starts))
    next_ids = np.concatenate([r.tokens[1:] for r in rows])
    outside = np.ones(len(next_ids), bool)
    outside[owner[chunk.head_ids == next_ids[owner]]] = False
    error = np.abs(chunk.label_logp - all_rows("label_logp"))
    assert error[outside].max() <= LAYOUT.realised_step / 2 + 1e-5


def test_a_small_tail_keeps_its_size_beside_two_large_probabilities() -> None:
    # If the tail were the remainder, the rounding errors of the two would exceed it.
    tails = np.array([0.002, 0.004, 0.01, 0.03])
    chunk = round_trip([with_head([[0.5, 0.5 - t] for t in tails])])
    assert np.abs(chunk.tail_mass / tails - 1).max() < 0.12


def test_divergence_caused_by_quantisation_is_small_everywhere() -> None:
    rng = np.random.default_rng(2)
    rows = [make_row(rng, tokens=60) for _ in range(20)]
    chunk = round_trip(rows)
    exact = np.concatenate([r.head_probs for r in rows]).astype(np.float64)
    owner = np.repeat(np.arange(len(chunk.tail_mass)), np.diff(chunk.head_starts))
    tail = np.clip(1 - np.bincount(owner, exact), 1e-12, 1)
    divergence = np.bincount(owner, exact * np.log(exact / chunk.head_probs))
    divergence += tail * np.log(tail / np.maximum(chunk.tail_mass, 1e-12))
    assert divergence.mean() < 1e-3
    assert divergence.max() < 0.05


@pytest.mark.parametrize(
    "probs",
    [
        [[1.0]],
        [[0.999999]],
        [[1e-5]],
        [[0.05] * 20],
        [[0.3000001, 0.3, 0.3]],
        [[0.5, 0.5]],
        [[0.5, 0.499999, 1e-6]],
        [[1 / 255] * 255],
    ],
)
def test_hostile_heads_come_back_valid(probs: list[list[float]]) -> None:
    chunk = round_trip([with_head(probs)])
    assert (chunk.head_probs > 0).all()
    assert (np.diff(chunk.head_probs) <= 0).all()
    assert chunk.head_probs.astype(np.float64).sum() + chunk.tail_mass[0] == 1


def test_a_position_without_a_head_has_all_mass_in_its_tail() -> None:
    row = with_head([[0.5], [0.5]])
    empty = Row(
        **{n: getattr(row, n) for n in Row.__slots__ if n not in ("head_count", "head_ids", "head_probs")},
        head_count=np.array([0, 1]),
        head_ids=np.array([3], np.int32),
        head_probs=np.array([0.5], np.float32),
    )
    chunk = round_trip([empty])
    assert chunk.tail_mass[0] == 1
    assert chunk.head_starts.tolist() == [0, 0, 1]


def test_ids_above_two_bytes_come_back() -> None:
    layout = Layout(vocab_size=262_144, temperatures=(), threshold=0.05, tail_floor=2e-3)
    row = with_head([[0.9]], vocab=262_144)
    wide = Row(
        **{n: getattr(row, n) for n in Row.__slots__ if n not in ("draw_count", "draw_ids", "log_z")},
        draw_count=np.array([3]),
        draw_ids=np.array([5, 70_000, 262_143], np.int32),
        log_z=np.empty((1, 0), np.float32),
    )
    chunk = round_trip([wide], layout)
    assert chunk.draw_ids.tolist() == [5, 70_000, 262_143]
    assert chunk.tokens.tolist() == [262_143] * 2


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("tokens", np.array([0, 1000], np.int32), "tokens: found ids"),
        ("head_ids", np.array([-1], np.int32), "head_ids: found ids"),
        ("head_probs", np.array([1.5], np.float32), "outside [0, 1]"),
        ("head_probs", np.array([np.nan], np.float32), "outside [0, 1]"),
        ("label_logp", np.array([-np.inf], np.float32), "not finite"),
        ("label_logp", np.array([0.5], np.float32), "at most 0"),
        ("entropy", np.array([np.nan], np.float32), "not finite"),
        ("whitespace_logp", np.array([np.nan], np.float32), "whitespace_logp"),
        ("draw_ids", np.array([1000], np.int32), "draw_ids: found ids"),
    ],
)
def test_what_no_teacher_could_say_is_refused_by_name(field: str, value: np.ndarray, said: str) -> None:
    row = with_head([[0.9]])
    fields = {n: getattr(row, n) for n in Row.__slots__} | {field: value}
    if field == "draw_ids":
        fields["draw_count"] = np.array([1])
    with pytest.raises(ShardError, match=said.replace("[", r"\[")):
        round_trip([Row(**fields)])


def test_rising_heads_are_refused() -> None:
    with pytest.raises(ShardError, match="rising"):
        round_trip([with_head([[0.2, 0.3]])])


def test_streams_that_contradict_each_other_are_refused() -> None:
    batch, _ = build_batch(LAYOUT, [with_head([[0.5], [0.5]])], file_schema(LAYOUT, task="t", fingerprint="f"))
    column = batch.schema.get_field_index("head_count")
    wrong = batch.set_column(column, batch.schema.field(column), pa.array([[2, 2]], batch.schema.field(column).type))
    with pytest.raises(CorruptShardError, match="expected 4"):
        decode_chunk(LAYOUT, wrong.serialize().to_pybytes(), where="test")


@pytest.mark.parametrize("layout", [LAYOUT, RESPONSES])
def test_damage_with_the_right_digest_is_an_error_or_a_chunk(layout: Layout) -> None:
    """Bytes from a stranger have the digest that the stranger's manifest says. Arrow must not read outside of them."""
    rng, chances = np.random.default_rng(0), random.Random(0)
    rows = make_responses(rng) if layout.has_responses else [make_row(rng, tokens=20) for _ in range(3)]
    batch, _ = build_batch(layout, rows, file_schema(layout, task="t", fingerprint="f"))
    raw = batch.serialize().to_pybytes()
    refused = 0
    for _ in range(1000):
        damaged = bytearray(raw)
        bit = chances.randrange(8 * chances.choice([1200, len(raw)]))  # the first bytes describe the buffers
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            list(chunk_problems(decode_chunk(layout, bytes(damaged), where="test"), layout.vocab_size))
        except CorruptShardError:
            refused += 1
    assert refused > 200
