"""Order of the rows of one cache or several, and the rows of each optimiser step.

The order is a function of the manifest digests, the caches' shares, the seed, the epoch and the caches' row counts. The
position in it is one integer, the number of completed optimiser steps. World size and restarts only decide which rank
reads which rows. Every epoch has the same number of steps, and each step has at least one row.

A cache is read in passes. A pass streams its chunks in a random order, and the rows of each chunk in a random order.
Documents are shuffled when the cache is written; therefore permuting chunks is enough, without a shuffle buffer. A pass
begins where the one before it ended, also within an epoch or a step, so no row is read twice before each row of its
cache was read once.

An epoch takes a fixed number of rows of each cache, by its share; of a single cache, all. The caches are merged evenly:
among any first rows of an epoch each has its part, to within a few rows (`_rows_by_part`). Step s of S takes the rows
R * s // S to R * (s + 1) // S of that merged stream. So steps differ by at most one row, and a chunk is read in one
piece.

Permutations sort 64-bit hashes (`hashing.py`), because numpy does not guarantee its random streams across releases.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from shards.format.chunk import Int64
from student_train.data.hashing import permutation
from student_train.errors import TrainError


class RowRef(NamedTuple):
    """Position of a row in the caches of a run."""

    chunk: int
    """Chunk of the cache."""
    row: int
    """Row of the chunk."""
    cache: int = 0
    """Number of the cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheSize:
    """What the order of a run needs to know of a cache."""

    manifest_sha256: str
    """Identity of the cache."""
    chunk_rows: tuple[int, ...]
    """Rows of each chunk, in the cache's order."""
    tokens: int
    """Tokens of the cache."""
    positions: int
    """Tokens that have a record."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanPart:
    """One cache in the order of a run."""

    manifest_sha256: str
    """Identity of the cache."""
    chunk_rows: tuple[int, ...]
    """Rows of each chunk, in the cache's order."""
    rows_per_epoch: int
    """Rows that an epoch reads: fewer than the cache has, or more."""
    first_row: int = 0
    """Rows that earlier plans of the run read; the first epoch goes on after them."""

    @property
    def num_rows(self) -> int:
        """Rows of the whole cache, held-out ones included."""
        return sum(self.chunk_rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The order of one run. Plans of equal inputs are equal."""

    parts: tuple[PlanPart, ...]
    """The caches, in the order of the command line."""
    seed: int
    """Seed of the run."""
    steps_per_epoch: int
    """S: optimiser steps of one epoch."""
    first_step: int = 0
    """Global step at which the first epoch of the plan begins."""

    @property
    def rows_per_epoch(self) -> int:
        """R: rows that an epoch reads, held-out ones included."""
        return sum(part.rows_per_epoch for part in self.parts)


def make_plan(
    caches: Sequence[CacheSize],
    *,
    batch_tokens: int,
    seed: int,
    shares: Sequence[Fraction] | None = None,
    first_step: int = 0,
    before: Fraction = Fraction(0),
    positions: Fraction | None = None,
) -> Plan:
    """Return the plan for one cache or several.

    With shares, a cache has its share of the positions of an epoch; without, an epoch reads each row once.

    A run that follows a cache has several plans (`segments.py`). The first cache is then the part that is new with this
    plan, and the others go on where the plans before it ended.

    Args:
        caches: The caches.
        batch_tokens: Tokens of a step, on average.
        seed: Seed of the run.
        shares: Share of the positions of an epoch that each cache has; they sum to one.
        first_step: Global step at which the first epoch begins.
        before: Positions of all caches that the plans before this one read.
        positions: Positions of an epoch; None for as many as all caches have together.

    Raises:
        TrainError: A cache has no rows, or no row with a record.
    """
    if any(sum(cache.chunk_rows) < 1 for cache in caches):
        raise TrainError("found a cache without rows; expected at least one; write it again with teacher-dump")
    if shares is not None and len(caches) > 1 and any(cache.positions < 1 for cache in caches):
        raise TrainError("found a cache without a record; expected one, to give it a share of the tokens; leave it out")
    total = Fraction(sum(cache.positions for cache in caches)) if positions is None else positions
    parts, tokens = [], Fraction(0)
    for k, cache in enumerate(caches):
        first, count = 0, sum(cache.chunk_rows)
        if shares is not None and len(caches) > 1:
            start = before if k > 0 else Fraction(0)
            first = _rows_at(cache, shares[k] * start)
            count = _rows_at(cache, shares[k] * (start + total)) - first
            if positions is None:
                count = max(1, count)
        tokens += Fraction(count * cache.tokens, sum(cache.chunk_rows))
        parts.append(
            PlanPart(
                manifest_sha256=cache.manifest_sha256,
                chunk_rows=tuple(cache.chunk_rows),
                rows_per_epoch=count,
                first_row=first,
            )
        )
    steps = min(sum(part.rows_per_epoch for part in parts), max(1, round(tokens / batch_tokens)))
    return Plan(parts=tuple(parts), seed=seed, steps_per_epoch=steps, first_step=first_step)


def _rows_at(cache: CacheSize, positions: Fraction) -> int:
    """Return the number of rows that have so many positions, at the mean length of the cache's rows."""
    return round(positions * sum(cache.chunk_rows) / cache.positions)


@functools.lru_cache(maxsize=32)
def stream(part: PlanPart, *, seed: int, number: int) -> tuple[Int64, Int64]:
    """Return the chunks of a pass in order [C], and the offset of the rows of each in the pass [C + 1]."""
    order = permutation(len(part.chunk_rows), key=f"{part.manifest_sha256}/{seed}/{number}")
    rows = np.asarray(part.chunk_rows, dtype=np.int64)[order]
    return order, np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(rows)])


def rows_of_step(plan: Plan, *, step: int, rank: int = 0, world_size: int = 1) -> list[RowRef]:
    """Return the rows that a rank reads in a step, in order.

    The lists of all ranks, concatenated in the order of ranks, are the rows of the step, whatever the world size. A
    list is empty where a step has fewer rows than there are ranks.

    Args:
        plan: Order of the rows.
        step: Global step.
        rank: Data-parallel rank.
        world_size: Number of ranks.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank}; expected 0 to {world_size - 1}")
    if step < plan.first_step:
        raise ValueError(f"step is {step}; expected at least the plan's first, {plan.first_step}")
    epoch, s = divmod(step - plan.first_step, plan.steps_per_epoch)
    total = plan.rows_per_epoch
    first = total * s // plan.steps_per_epoch
    count = total * (s + 1) // plan.steps_per_epoch - first
    return _rows_between(
        plan,
        epoch=epoch,
        start=first + count * rank // world_size,
        stop=first + count * (rank + 1) // world_size,
    )


def _rows_between(plan: Plan, *, epoch: int, start: int, stop: int) -> list[RowRef]:
    """Return the rows `start` to `stop` of an epoch."""
    before, after = _rows_by_part(plan, start), _rows_by_part(plan, stop)
    queues = []
    for number, part in enumerate(plan.parts):
        base = part.first_row + epoch * part.rows_per_epoch
        refs = _rows_of_part(part, seed=plan.seed, start=base + before[number], stop=base + after[number])
        queues.append(iter([ref._replace(cache=number) for ref in refs]))
    refs = []
    for place in range(start + 1, stop + 1):
        now = _rows_by_part(plan, place)
        number = next(k for k, count in enumerate(now) if count > before[k])
        refs.append(next(queues[number]))
        before = now
    return refs


def _rows_by_part(plan: Plan, place: int) -> list[int]:
    """Return the number of rows of each cache among the first `place` of an epoch.

    Each cache takes its part of what the caches before it leave, rounded down. So the numbers never fall, sum to
    `place`, and differ from equal parts by less than the number of caches.
    """
    counts, left, total = [], place, plan.rows_per_epoch
    for part in plan.parts:
        count = left * part.rows_per_epoch // total if part.rows_per_epoch else 0
        counts.append(count)
        left -= count
        total -= part.rows_per_epoch
    return counts


def _rows_of_part(part: PlanPart, *, seed: int, start: int, stop: int) -> list[RowRef]:
    """Return the rows `start` to `stop` of a cache, counted over all its passes."""
    refs: list[RowRef] = []
    while start < stop:
        number, first = divmod(start, part.num_rows)
        last = min(part.num_rows, first + stop - start)
        refs += _rows_of_pass(part, seed=seed, number=number, start=first, stop=last)
        start += last - first
    return refs


def _rows_of_pass(part: PlanPart, *, seed: int, number: int, start: int, stop: int) -> list[RowRef]:
    order, offsets = stream(part, seed=seed, number=number)
    refs: list[RowRef] = []
    place = int(np.searchsorted(offsets, start, side="right")) - 1
    while start < stop:
        chunk, base, end = int(order[place]), int(offsets[place]), int(offsets[place + 1])
        if start < end:
            within = permutation(end - base, key=f"{part.manifest_sha256}/{seed}/{number}/{chunk}")
            last = min(stop, end)
            refs += [RowRef(chunk, int(r)) for r in within[start - base : last - base]]
            start = last
        place += 1
    return refs
