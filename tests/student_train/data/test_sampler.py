"""Tests of the order of rows: each row once per epoch, whatever the stops and world sizes."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from student_train.data.sampler import CacheSize, Plan, RowRef, make_plan, rows_of_step

WORLD_SIZES = (4, 3, 12, 1, 2)


def size_of(chunk_rows: Sequence[int], *, digest: str = "ab", tokens: int = 10, positions: int = 9) -> CacheSize:
    """Return the size of a cache with so many tokens and positions a row."""
    rows = sum(chunk_rows)
    return CacheSize(
        manifest_sha256=digest, chunk_rows=tuple(chunk_rows), tokens=tokens * rows, positions=positions * rows
    )


def plan_of(chunk_rows: Sequence[int], *, batch: int = 5, seed: int = 0, digest: str = "ab") -> Plan:
    return make_plan([size_of(chunk_rows, digest=digest)], batch_tokens=10 * batch, seed=seed)


def order_of(plan: Plan, *, epochs: int = 1) -> list[RowRef]:
    """Return the rows of the first epochs."""
    steps = range(plan.first_step, plan.first_step + epochs * plan.steps_per_epoch)
    return [ref for step in steps for ref in rows_of_step(plan, step=step)]


@settings(max_examples=60, deadline=None)
@given(
    chunk_rows=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    batch=st.integers(1, 30),
    seed=st.integers(0, 99),
    stops=st.lists(st.integers(0, 40), max_size=8),
    worlds=st.lists(st.integers(1, 16), min_size=9, max_size=9) | st.just([*WORLD_SIZES, *WORLD_SIZES]),
    start=st.integers(0, 1000),
)
def test_any_stops_and_world_sizes_consume_each_row_once_per_epoch(
    chunk_rows: list[int], batch: int, seed: int, stops: list[int], worlds: list[int], start: int
) -> None:
    plan = dataclasses.replace(plan_of(chunk_rows, batch=batch, seed=seed), first_step=start)
    epochs, seen = 2, []
    steps = range(start, start + 2 * plan.steps_per_epoch)
    # Two stops at one step are a session that was stopped before it took one.
    bounds = sorted([0, len(steps), *(s % len(steps) for s in stops)])
    for world_size, (first, last) in zip(worlds, itertools.pairwise(bounds), strict=False):
        for step in steps[first:last]:
            for rank in range(world_size):
                seen += rows_of_step(plan, step=step, rank=rank, world_size=world_size)
    alone = [ref for step in steps for ref in rows_of_step(plan, step=step)]
    assert seen == alone
    every = {RowRef(c, r) for c, rows in enumerate(chunk_rows) for r in range(rows)}
    assert Counter(seen[: len(every)]) == Counter(every)
    assert Counter(seen[len(every) :]) == Counter(every)
    assert len(seen) == epochs * len(every)


@settings(max_examples=40, deadline=None)
@given(chunk_rows=st.lists(st.integers(1, 9), min_size=1, max_size=12), batch=st.integers(1, 30))
def test_steps_are_never_empty_and_differ_by_at_most_one_row(chunk_rows: list[int], batch: int) -> None:
    plan = plan_of(chunk_rows, batch=batch)
    sizes = {len(rows_of_step(plan, step=step)) for step in range(plan.steps_per_epoch)}
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


def test_a_chunk_is_read_in_one_go() -> None:
    plan = plan_of([7] * 20, batch=3)
    chunks = [ref.chunk for step in range(plan.steps_per_epoch) for ref in rows_of_step(plan, step=step)]
    changes = sum(a != b for a, b in itertools.pairwise(chunks))
    assert changes == 19


def test_order_depends_on_manifest_seed_and_epoch() -> None:
    def order(*, digest: str, seed: int, epoch: int) -> list[RowRef]:
        plan = plan_of([4] * 10, seed=seed, digest=digest)
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        return [ref for step in steps for ref in rows_of_step(plan, step=step)]

    base = order(digest="a", seed=0, epoch=0)
    assert base == order(digest="a", seed=0, epoch=0)
    assert order(digest="b", seed=0, epoch=0) != base
    assert order(digest="a", seed=1, epoch=0) != base
    assert order(digest="a", seed=0, epoch=1) != base


def test_a_step_before_the_plans_first_is_a_bug() -> None:
    with pytest.raises(ValueError, match="step is 4; expected at least the plan's first, 5"):
        rows_of_step(dataclasses.replace(plan_of([3, 3]), first_step=5), step=4)


def test_an_empty_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="without rows"):
        plan_of([])


def test_the_order_of_one_cache_is_that_of_every_release() -> None:
    """The digest was taken from the code before runs could have several caches."""
    chunks = (7, 1, 12, 5, 9)
    for shares in (None, [Fraction(1)]):
        plan = make_plan(
            [size_of(chunks, digest="ab" * 32, tokens=100)], batch_tokens=500, seed=3, shares=shares, first_step=2
        )
        assert plan.steps_per_epoch == 7
        refs = [
            (step, rank, (ref.chunk, ref.row))
            for step in range(2, 2 + 3 * plan.steps_per_epoch)
            for rank in range(2)
            for ref in rows_of_step(plan, step=step, rank=rank, world_size=2)
        ]
        digest = hashlib.sha256(repr(refs).encode()).hexdigest()
        assert digest == "d6b70cf2996598a3c908897b803c549c01cf5f9c1a4a9d79bb91222fba50930b"


CACHES = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=2, max_size=4)


@settings(max_examples=60, deadline=None)
@given(
    caches=CACHES,
    weights=st.lists(st.integers(1, 20), min_size=4, max_size=4) | st.none(),
    rows=st.lists(st.integers(2, 30), min_size=4, max_size=4),
    batch=st.integers(1, 60),
    worlds=st.lists(st.integers(1, 7), min_size=3, max_size=3),
    seed=st.integers(0, 9),
)
def test_several_caches_are_read_by_their_shares_and_each_row_before_any_twice(
    caches: list[list[int]],
    weights: list[int] | None,
    rows: list[int],
    batch: int,
    worlds: list[int],
    seed: int,
) -> None:
    """`rows` has the positions of a row of each cache; its tokens are one more."""
    sizes = [
        size_of(chunks, digest=f"{k:064x}", tokens=length + 1, positions=length)
        for k, (chunks, length) in enumerate(zip(caches, rows, strict=False))
    ]
    total = sum(size.positions for size in sizes)
    shares = None
    if weights is not None:
        shares = [Fraction(weight, sum(weights[: len(sizes)])) for weight in weights[: len(sizes)]]
    plan = make_plan(sizes, batch_tokens=batch, seed=seed, shares=shares)
    alone = order_of(plan, epochs=3)

    # World size: three epochs, another number of ranks in each, concatenated by rank.
    seen = []
    for epoch, world_size in enumerate(worlds):
        for step in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch):
            for rank in range(world_size):
                seen += rows_of_step(plan, step=step, rank=rank, world_size=world_size)
    assert seen == alone

    # Shares: an epoch has the positions of all caches together, of each cache its share, to within half a row.
    # Every beginning of an epoch has them too, to within a few rows.
    epoch_rows = len(alone) // 3
    for k, size in enumerate(sizes):
        wanted = Fraction(size.positions) if shares is None else shares[k] * total
        for epoch in range(3):
            part = alone[epoch * epoch_rows : (epoch + 1) * epoch_rows]
            found = sum(ref.cache == k for ref in part)
            assert abs(found * rows[k] - wanted) <= Fraction(rows[k], 2) or (found == 1 and wanted < rows[k])
            for end in range(epoch_rows):
                so_far = sum(ref.cache == k for ref in part[:end])
                assert abs(so_far - Fraction(found * end, epoch_rows)) < len(sizes)

    # Passes: no row of a cache twice before each was read once, over the borders of epochs.
    for k, chunks in enumerate(caches):
        every = {RowRef(c, r, k) for c, count in enumerate(chunks) for r in range(count)}
        own = [ref for ref in alone if ref.cache == k]
        for begin in range(0, len(own), len(every)):
            a_pass = own[begin : begin + len(every)]
            assert len(set(a_pass)) == len(a_pass)
            assert set(a_pass) <= every


def test_the_order_over_several_caches_depends_on_digests_shares_and_seed() -> None:
    def order(*, digest: str = "b", share: Fraction = Fraction(1, 2), seed: int = 0) -> list[RowRef]:
        sizes = [size_of([4] * 5, digest="a"), size_of([3] * 7, digest=digest)]
        return order_of(make_plan(sizes, batch_tokens=50, seed=seed, shares=[share, 1 - share]))

    base = order()
    assert base == order()
    assert len({tuple(o) for o in (base, order(digest="c"), order(share=Fraction(1, 3)), order(seed=1))}) == 4


def test_a_cache_in_a_mixture_is_read_in_the_order_that_it_has_alone() -> None:
    sizes = [size_of([4] * 5, digest="a"), size_of([3] * 7, digest="b")]
    mixed = order_of(make_plan(sizes, batch_tokens=50, seed=1))
    for k, size in enumerate(sizes):
        alone = order_of(make_plan([size], batch_tokens=50, seed=1))
        assert [ref._replace(cache=0) for ref in mixed if ref.cache == k] == alone


def test_every_step_of_several_caches_has_a_row() -> None:
    sizes = [size_of([5], digest=str(k)) for k in range(4)]
    plan = make_plan(sizes, batch_tokens=1, seed=0)
    assert [len(rows_of_step(plan, step=step)) for step in range(plan.steps_per_epoch)] == [1] * 20


def test_a_cache_without_a_record_has_no_share() -> None:
    sizes = [size_of([4], digest="a"), size_of([4], digest="b", tokens=1, positions=0)]
    with pytest.raises(ValueError, match="without a record"):
        make_plan(sizes, batch_tokens=50, seed=0, shares=[Fraction(1, 2), Fraction(1, 2)])
