"""Tests of the order of rows: each row once per epoch, whatever the stops and world sizes."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from student_train.data.sampler import RowRef, make_plan, rows_of_step

WORLD_SIZES = (4, 3, 12, 1, 2)


def plan_of(chunk_rows: list[int], *, batch: int = 5, seed: int = 0, digest: str = "ab"):  # type: ignore[no-untyped-def]
    return make_plan(
        tuple(chunk_rows), tokens=10 * sum(chunk_rows), batch_tokens=10 * batch, manifest_sha256=digest, seed=seed
    )


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
