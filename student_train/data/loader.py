"""Read, decode and pack chunks into batches, on a thread that runs ahead of the device.

`Stream` yields one `Step` per optimiser step, in order. The content of a step is a pure function of the plan (see
`sampler.py`); the thread only prepares it early. An error while reading is raised in the consumer, at the step that it
belongs to. Held-out documents never appear. Memory: the prefetched steps and a few decoded chunks.
"""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol

import numpy as np

from shards.format.chunk import Chunk, RowInfo
from student_train.data.hashing import HeldOutRule
from student_train.data.packing import Batch, Packing
from student_train.data.sampler import Plan, RowRef, rows_of_step
from student_train.errors import TrainError

_CACHED_CHUNKS = 4
"""Decoded chunks of a cache that are kept. The rows of a step come from one or two chunks; ranks share a few."""


class ChunkSource(Protocol):
    """What a reader needs of `shards.open(...)`."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Chunk: ...


class Batcher(Protocol):
    """Maker of batches: an objective for the rows of a cache."""

    def batches(self, rows: list[Chunk], packing: Packing) -> tuple[Batch, ...]:
        """Return rows, given as chunks of one row each, as batches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheSpec:
    """How the rows of one cache become batches."""

    batcher: Batcher
    """The objective for its rows."""
    held_out: HeldOutRule
    """Which of its rows are left out."""
    kind: int = 0
    """Number of the objective in the run. Rows of one number share batches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSpec:
    """How the rows of a step become batches."""

    caches: tuple[CacheSpec, ...]
    """The caches of the run, in the order of the plan."""
    packing: Packing
    """How rows share batches and sequences."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A rank's batches of one optimiser step."""

    number: int
    """Global step, from 0."""
    batches: tuple[Batch, ...]
    """Batches of accumulated gradients; empty if every row of the step is held out."""
    rows: dict[str, int]
    """What was read: `rows`, `rows_without_loss` (no batch has them), and in the shards' tokens `context_tokens`,
    which have no position, and `response_tokens`, which have one. Of several caches, the rows and those tokens of cache
    N, from 1, too: `rows/N`, `response_tokens/N`. `rows_with_relations` where a cache has some."""

    @property
    def num_positions(self) -> int:
        """Positions with a target."""
        return sum(batch.num_positions for batch in self.batches)


def require_context(cache: ChunkSource, *, max_row_tokens: int, window_tokens: int | None) -> None:
    """Raise TrainError, naming the first row of more than `max_row_tokens` tokens.

    Args:
        cache: The cache to search.
        max_row_tokens: Most tokens of a row that the student reads.
        window_tokens: Longest window that the dump was configured to write; None if unknown. Chunks are read only
            where it exceeds `max_row_tokens`.
    """
    if window_tokens is not None and window_tokens <= max_row_tokens:
        return
    for i in range(len(cache)):
        chunk = cache[i]
        lengths = np.diff(chunk.row_starts)
        r = int(lengths.argmax()) if len(lengths) else 0
        if len(lengths) and lengths[r] > max_row_tokens:
            raise row_too_long(chunk.rows[r], int(lengths[r]), max_row_tokens)


def row_too_long(info: RowInfo, length: int, limit: int) -> TrainError:
    """Return the error for a row of more tokens than the student reads."""
    return TrainError(
        f"document {info.document[:12]} window {info.window} has {length} tokens; the student reads at most {limit}; "
        f"dump again with teacher-dump --window-tokens {limit}, or choose another --student"
    )


class Rows:
    """Rows by reference. The last few decoded chunks of each cache are kept."""

    def __init__(self, caches: Sequence[ChunkSource]) -> None:
        """Read rows from `caches`, in the order of the plan."""
        self._caches = caches
        self._chunks: list[OrderedDict[int, Chunk]] = [OrderedDict() for _ in caches]

    def __getitem__(self, ref: RowRef) -> Chunk:
        chunks = self._chunks[ref.cache]
        if ref.chunk not in chunks:
            chunks[ref.chunk] = self._caches[ref.cache][ref.chunk]
            while len(chunks) > _CACHED_CHUNKS:
                chunks.popitem(last=False)
        chunks.move_to_end(ref.chunk)
        return chunks[ref.chunk].row(ref.row)


def read_step(rows: Rows, plan: Plan, spec: BatchSpec, *, step: int, rank: int = 0, world_size: int = 1) -> Step:
    """Return the batches of `rank` of `world_size` at global step `step`."""
    by_cache: list[list[Chunk]] = [[] for _ in spec.caches]
    by_kind: dict[int, list[Chunk]] = {cache.kind: [] for cache in spec.caches}
    for ref in rows_of_step(plan, step=step, rank=rank, world_size=world_size):
        row, cache = rows[ref], spec.caches[ref.cache]
        if not cache.held_out.holds_out(row.rows[0]):
            by_cache[ref.cache].append(row)
            by_kind[cache.kind].append(row)
    batches: list[Batch] = []
    batchers = {cache.kind: cache.batcher for cache in spec.caches}
    for kind, training in by_kind.items():
        if spec.packing.layout == "padded":  # neighbours of similar length need little padding
            training.sort(key=lambda row: -len(row.tokens))
        batches += (replace(batch, kind=kind) for batch in batchers[kind].batches(training, spec.packing))
    return Step(number=step, batches=tuple(batches), rows=_row_counts(by_cache, batches))


def _row_counts(by_cache: list[list[Chunk]], batches: list[Batch]) -> dict[str, int]:
    """Return `Step.rows`."""
    rows = [row for rows in by_cache for row in rows]
    counts = {
        "rows": len(rows),
        "rows_without_loss": len(rows) - sum(len(batch.rows) for batch in batches),
        "context_tokens": sum(row.rows[0].context for row in rows),
        "response_tokens": _response_tokens(rows),
        **_relation_counts(rows),
    }
    if len(by_cache) > 1:
        for number, rows in enumerate(by_cache, 1):
            counts |= {f"rows/{number}": len(rows), f"response_tokens/{number}": _response_tokens(rows)}
    return counts


def _response_tokens(rows: list[Chunk]) -> int:
    return sum(len(row.tokens) - row.rows[0].context for row in rows)


def _relation_counts(rows: list[Chunk]) -> dict[str, int]:
    """Return the number of rows with vectors of a layer; {} where the cache has none."""
    groups = [row.relations for row in rows if row.relations is not None]
    return {"rows_with_relations": sum(len(group.codes) > 0 for group in groups)} if groups else {}


class Stream:
    """Steps `first` to `last` (exclusive), prefetched by a thread.

    Use it as a context manager and iterate once.
    """

    def __init__(
        self,
        caches: Sequence[ChunkSource],
        plan: Plan,
        spec: BatchSpec,
        *,
        first: int,
        last: int,
        prefetch: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Prepare the thread; entering the context starts it.

        Args:
            caches: The caches that `plan` orders.
            plan: Order of the rows.
            spec: How rows become batches.
            first: First global step.
            last: One past the last global step.
            prefetch: Most steps that wait for the consumer.
            rank: Data-parallel rank.
            world_size: Number of ranks.
        """
        self._queue: queue.Queue[Step | BaseException] = queue.Queue(maxsize=prefetch)
        self._stop = threading.Event()
        self._count = max(0, last - first)

        def work() -> None:
            rows = Rows(caches)
            try:
                for number in range(first, last):
                    step = read_step(rows, plan, spec, step=number, rank=rank, world_size=world_size)
                    if not self._put(step):
                        return
            except BaseException as error:  # the consumer raises it
                self._put(error)

        self._thread = threading.Thread(target=work, name="reader", daemon=True)

    def _put(self, item: Step | BaseException) -> bool:
        """Return whether the item was queued before the stream was stopped."""
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Step]:
        for _ in range(self._count):
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item
