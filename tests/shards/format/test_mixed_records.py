"""Tests of mixing records: unbiased against dense distributions, with bounds for what is not exact.

Teachers are dense random distributions, so that the mixture is known. Their records are made by the definition in
docs/format.md, and go through the codec as those of a cache do.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from shards.format.batch import Row, build_batch, decode_chunk
from shards.format.chunk import Chunk, RowInfo
from shards.format.invariants import chunk_problems
from shards.format.mixed_records import entropy_bound, mix_rows
from shards.format.quantiser import expected_draws, tail_code
from shards.format.schema import Layout, file_schema

VOCAB = 40
POSITIONS = 6
LAYOUT = Layout(vocab_size=VOCAB, temperatures=(2.0,), threshold=0.1, tail_floor=2e-3)
MIXED = replace(LAYOUT, temperatures=())
WEIGHTS = (0.7, 0.3)
REPEATS = 1200
INFO = RowInfo(
    document="ab" * 32, window=0, byte_start=0, byte_end=9, source="tests", path="a.py", licence="MIT", context=1
)

Dense = npt.NDArray[np.float64]


def dense(seed: int) -> Dense:
    """Return distributions [P, V]: flat, peaked, and one whose tail is below the floor."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(VOCAB, 0.25), size=POSITIONS)
    probs[0] = rng.dirichlet(np.full(VOCAB, 5.0))
    probs[1] = np.full(VOCAB, 1e-6)
    probs[1, seed % VOCAB] = 1 - 39e-6
    return (probs + 1e-9) / (probs + 1e-9).sum(1, keepdims=True)


def record(probs_PV: Dense, tokens: npt.NDArray[np.int32], rng: np.random.Generator, *, empty: bool = False) -> Chunk:
    """Return the decoded records of a teacher: threshold heads and systematic draws."""
    count_P = np.zeros(len(probs_PV), np.int64)
    heads, probs, draws = [], [], []
    for p, p_V in enumerate(probs_PV):
        order = np.argsort(-p_V, kind="stable")
        head = order[:0] if empty else order[: max(1, int((p_V >= LAYOUT.threshold).sum()))]
        heads.append(head)
        probs.append(p_V[head].astype(np.float32))
        code = min(tail_code(np.array(1 - probs[-1].astype(np.float64).sum())), 254) if len(head) else 255
        count_P[p] = expected_draws(LAYOUT.threshold, LAYOUT.tail_floor)[code]
        rest = np.setdiff1d(np.arange(VOCAB), head)
        ends = np.cumsum(p_V[rest])
        places = (rng.random() + np.arange(count_P[p])) / max(count_P[p], 1) * ends[-1]
        draws.append(rest[np.minimum(np.searchsorted(ends, places, side="right"), len(rest) - 1)])
    row = Row(
        info=INFO,
        tokens=tokens,
        head_count=np.array([len(h) for h in heads]),
        head_ids=np.concatenate(heads).astype(np.int32),
        head_probs=np.concatenate(probs),
        draw_count=count_P,
        draw_ids=np.concatenate(draws).astype(np.int32),
        label_logp=np.log(probs_PV[np.arange(len(heads)), tokens[1:]]).astype(np.float32),
        whitespace_logp=np.log(probs_PV[:, :4].sum(1)).astype(np.float32),
        entropy=-(probs_PV * np.log(probs_PV)).sum(1).astype(np.float32),
        log_z=np.zeros((len(heads), 1), np.float32),
    )
    return through_codec(row, LAYOUT)


def through_codec(row: Row, layout: Layout) -> Chunk:
    schema = file_schema(layout, task="0", fingerprint="f")
    batch, _ = build_batch(layout, [row], schema)
    chunk = decode_chunk(layout, batch.serialize().to_pybytes(), where="test")
    assert list(chunk_problems(chunk, VOCAB)) == []
    return chunk


def estimate(chunk: Chunk) -> Dense:
    """Return the weight of each id [P, V]: head probabilities, and equal weights of the draws."""
    positions = len(chunk.tail_mass)
    found = np.zeros((positions, VOCAB))
    heads, draws = np.diff(chunk.head_starts), np.diff(chunk.draw_starts)
    np.add.at(found, (np.repeat(np.arange(positions), heads), chunk.head_ids), chunk.head_probs)
    each = chunk.tail_mass / np.maximum(draws, 1)
    np.add.at(found, (np.repeat(np.arange(positions), draws), chunk.draw_ids), np.repeat(each, draws))
    return found


def tokens_of(seed: int, *, repeats: int = 1) -> npt.NDArray[np.int32]:
    labels = np.random.default_rng(seed).integers(0, VOCAB, POSITIONS + 1)
    return np.concatenate(([labels[0]], np.tile(labels[1:], repeats))).astype(np.int32)


def deviations(weights: tuple[float, float], *, empty: bool = False) -> Dense:
    """Return |mean of decoded mixtures - exact mixture| in units of what noise and rounding allow [P, V].

    A row repeats the same positions, each time with draws of its own.
    """
    first, second, tokens = dense(3), dense(4), tokens_of(0, repeats=REPEATS)
    exact = WEIGHTS[0] * first + WEIGHTS[1] * second
    rng = np.random.default_rng(5)
    rows = [
        record(np.tile(first, (REPEATS, 1)), tokens, rng),
        record(np.tile(second, (REPEATS, 1)), tokens, rng, empty=empty),
    ]
    found = estimate(through_codec(mix_rows(rows, weights, MIXED, seed="s"), MIXED))
    found = found.reshape(REPEATS, POSITIONS, VOCAB)
    mean = found.mean(0)
    # Ids so rare that hardly a draw has them: a weight is at most the threshold, which bounds the variance.
    variance = np.maximum(found.var(0), LAYOUT.threshold * exact * (exact < 0.002))
    error = np.sqrt(variance / REPEATS)
    # Two codings, each by half a step of asin(sqrt(p)), and the largest has the rest; a tail's is shared by its ids.
    step = np.pi / 510
    outside = np.where(exact < LAYOUT.threshold * min(WEIGHTS), exact, 0)
    tail = np.maximum(outside.sum(1, keepdims=True), 1e-9)
    rounding = step * (2 * np.sqrt(mean * (1 - mean)) * (exact >= 0.01) + outside / np.sqrt(tail))
    floor = LAYOUT.tail_floor / 8 * (tail < 2 * LAYOUT.tail_floor)  # a tail without draws is known as one mass
    return np.abs(mean - exact) / (5 * error + rounding + floor + 1e-6)


@pytest.mark.parametrize("empty", [False, True])
def test_the_mean_of_mixtures_is_the_mixture(empty: bool) -> None:
    assert deviations(WEIGHTS, empty=empty).max() < 1.0


@pytest.mark.slow
def test_wrong_weights_are_found() -> None:
    assert deviations((0.6, 0.4)).max() > 3.0


@pytest.mark.slow
def test_draws_of_wrong_weight_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each drawn id has the same weight, whichever teacher drew it."""
    from shards.format import mixed_records

    real = mixed_records._draw

    def equal(tail, wanted, offset):  # type: ignore[no-untyped-def]
        return real(tail._replace(weight=np.ones_like(tail.weight)), wanted, offset)

    monkeypatch.setattr(mixed_records, "_draw", equal)
    assert deviations(WEIGHTS).max() > 3.0


def test_what_is_exact_is_exact() -> None:
    first, second, tokens = dense(3), dense(4), tokens_of(0)
    rng = np.random.default_rng(1)
    rows = [record(first, tokens, rng), record(second, tokens, rng)]
    mixed = through_codec(mix_rows(rows, WEIGHTS, MIXED, seed="s"), MIXED)
    exact = WEIGHTS[0] * first + WEIGHTS[1] * second
    assert np.exp(mixed.whitespace_logp) == pytest.approx(exact[:, :4].sum(1), abs=4e-3)
    heads = [set(row.head_ids[row.head_starts[p] : row.head_starts[p + 1]]) for row in rows for p in range(POSITIONS)]
    checked = 0
    for p in range(POSITIONS):
        label, in_heads = tokens[p + 1], (tokens[p + 1] in heads[p]) + (tokens[p + 1] in heads[POSITIONS + p])
        if in_heads == 0:
            assert mixed.label_logp[p] == pytest.approx(np.log(exact[p, label]), abs=2e-3)
            checked += 1
        mixed_head = set(mixed.head_ids[mixed.head_starts[p] : mixed.head_starts[p + 1]])
        assert mixed_head == heads[p] | heads[POSITIONS + p]
    assert checked > 1


def test_the_entropy_is_bounded_from_below_and_the_gap_is_bounded() -> None:
    tokens = tokens_of(0)
    for seed in range(20):
        first, second = dense(2 * seed), dense(2 * seed + 1)
        second[3] = first[3]  # equal teachers: the bound is exact
        rng = np.random.default_rng(seed)
        rows = [record(first, tokens, rng), record(second, tokens, rng)]
        exact = WEIGHTS[0] * first + WEIGHTS[1] * second
        entropy = -(exact * np.log(exact)).sum(1)
        bound = entropy_bound(rows, WEIGHTS)
        assert (bound <= entropy + 0.03).all()  # codes of entropy are 0.02 nat apart here
        assert bound[3] == pytest.approx(entropy[3], abs=0.03)
        most = -(np.array(WEIGHTS) * np.log(WEIGHTS)).sum()
        for p in range(POSITIONS):
            spans = [row.head_ids[row.head_starts[p] : row.head_starts[p + 1]] for row in rows]
            shared = np.intersect1d(*spans)
            assert entropy[p] - bound[p] <= (1 - exact[p, shared].sum()) * most + 0.03


def test_a_mixture_is_the_same_every_time_and_another_seed_draws_others() -> None:
    tokens = tokens_of(0)
    rng = np.random.default_rng(1)
    rows = [record(dense(3), tokens, rng), record(dense(4), tokens, rng)]
    first, again, other = (mix_rows(rows, WEIGHTS, MIXED, seed=seed) for seed in ("a", "a", "b"))
    assert np.array_equal(first.draw_ids, again.draw_ids)
    assert not np.array_equal(first.draw_ids, other.draw_ids)
