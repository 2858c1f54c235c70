"""Order of the rows of a cache, and the rows of each optimiser step.

The order is a function of the manifest digest, the seed, the epoch and the cache's row counts. The position in it is
one integer, the number of completed optimiser steps. World size and restarts only decide which rank reads which rows.
Every epoch has the same number of steps, and each step has at least one row.

An epoch streams its chunks in a random order, and the rows of each chunk in a random order. Step s of S takes the rows
R * s // S to R * (s + 1) // S of that stream. So steps differ by at most one row, and a chunk is read in one piece.
Documents are shuffled when the cache is written; therefore permuting chunks is enough, without a shuffle buffer.

Permutations sort 64-bit hashes (`hashing.py`), because numpy does not guarantee its random streams across releases.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from shards.format.chunk import Int64
from student_train.data.hashing import permutation
from student_train.errors import TrainError


class RowRef(NamedTuple):
    """Position of a row in a cache."""

    chunk: int
    """Chunk of the cache."""
    row: int
    """Row of the chunk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The order of one run over one cache. Plans of equal inputs are equal."""

    manifest_sha256: str
    """Identity of the cache."""
    seed: int
    """Seed of the run."""
    chunk_rows: tuple[int, ...]
    """Rows of each chunk, in the cache's order."""
    steps_per_epoch: int
    """S: optimiser steps of one epoch."""
    first_step: int = 0
    """Global step at which the first epoch of the plan begins."""

    @property
    def num_rows(self) -> int:
        """Rows of the whole cache, held-out ones included."""
        return sum(self.chunk_rows)


def make_plan(
    chunk_rows: tuple[int, ...],
    *,
    tokens: int,
    batch_tokens: int,
    manifest_sha256: str,
    seed: int,
    first_step: int = 0,
) -> Plan:
    """Return the plan for a cache.

    Args:
        chunk_rows: Rows of each chunk, in the cache's order.
        tokens: Tokens of the cache.
        batch_tokens: Tokens of a step, on average.
        manifest_sha256: Identity of the cache.
        seed: Seed of the run.
        first_step: Global step at which the first epoch begins.

    Raises:
        TrainError: The cache has no rows.
    """
    rows = sum(chunk_rows)
    if rows < 1:
        raise TrainError("found a cache without rows; expected at least one; write it again with teacher-dump")
    steps = min(rows, max(1, round(tokens / batch_tokens)))
    return Plan(
        manifest_sha256=manifest_sha256,
        seed=seed,
        chunk_rows=tuple(chunk_rows),
        steps_per_epoch=steps,
        first_step=first_step,
    )


@functools.lru_cache(maxsize=4)
def stream(plan: Plan, *, epoch: int) -> tuple[Int64, Int64]:
    """Return the chunks of an epoch in order [C], and the offset of the rows of each in the stream [C + 1]."""
    order = permutation(len(plan.chunk_rows), key=f"{plan.manifest_sha256}/{plan.seed}/{epoch}")
    rows = np.asarray(plan.chunk_rows, dtype=np.int64)[order]
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
    total = plan.num_rows
    first = total * s // plan.steps_per_epoch
    count = total * (s + 1) // plan.steps_per_epoch - first
    return _stream_slice(
        plan,
        epoch=epoch,
        start=first + count * rank // world_size,
        stop=first + count * (rank + 1) // world_size,
    )


def _stream_slice(plan: Plan, *, epoch: int, start: int, stop: int) -> list[RowRef]:
    order, offsets = stream(plan, epoch=epoch)
    refs: list[RowRef] = []
    place = int(np.searchsorted(offsets, start, side="right")) - 1
    while start < stop:
        chunk, base, end = int(order[place]), int(offsets[place]), int(offsets[place + 1])
        if start < end:
            within = permutation(end - base, key=f"{plan.manifest_sha256}/{plan.seed}/{epoch}/{chunk}")
            last = min(stop, end)
            refs += [RowRef(chunk, int(r)) for r in within[start - base : last - base]]
            start = last
        place += 1
    return refs
