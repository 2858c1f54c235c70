"""How do chunks become batches? One thread reads, checks, decodes and packs ahead of the device.

Contract: `Stream` yields one `Step` per optimiser step from `first` to `last`, in order. What a step holds is a pure
function of the plan (see `order.py`); the thread only makes it early. Whatever goes wrong while reading is raised in
the consumer, at the step that it belongs to. Held-out documents never appear. Memory: `prefetch` steps and a few
decoded chunks.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol

import numpy as np

from shards.format.chunk import Chunk, RowInfo
from student_train.cross_tokenizer.targets import TokenizerPair, cross_targets
from student_train.data.hashing import is_held_out
from student_train.data.packing import Batch, empty_batch, groups, pack
from student_train.data.sampler import Plan, RowRef, rows_of_step
from student_train.errors import TrainError
from student_train.losses.targets import targets_of

_CHUNKS_AT_HAND = 4  # a step's rows come from one or two chunks; ranks share a few


class ChunkSource(Protocol):
    """What is needed of `shards.open(...)` to read rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Chunk: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSpec:
    """How rows are made into batches."""

    vocab_size: int
    """Ids that the student has."""
    max_row_tokens: int
    """Longest row that the student can read."""
    micro_tokens: int
    """Most tokens of a batch."""
    layout: str = "mask"
    """How rows share a sequence, one of `packing.LAYOUTS`."""
    widest: int | None = None
    """Most places of a sequence that rows share; None without a limit."""
    target_kind: str
    """What the loss needs, see `targets.targets_of`."""
    temperature: float
    """Softening of the targets."""
    temperature_column: int | None
    """Where `log_z` holds the temperature; None for 1."""
    skip: int
    """First positions of a row that predict prefix tokens."""
    held_out: float
    """Share of documents that are not trained on."""
    subset: tuple[int, ...] = ()
    """Ids that a specialist keeps apart."""
    rs_draws: int = 50
    """Draws of a position for `rs-kd`."""
    seed: int = 0
    """Fixes those draws."""
    tables: TokenizerPair | None = None
    """How rows become those of a student with another tokenizer; None where it has the shards'."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """All of a rank's batches of one optimiser step."""

    number: int
    """Global step, from 0."""
    batches: tuple[Batch, ...]
    """Batches whose gradients add up. Empty if every row of the step is held out."""

    @property
    def num_positions(self) -> int:
        """Positions with a target."""
        return sum(batch.num_positions for batch in self.batches)

    @property
    def left_out(self) -> Counter[str]:
        """What a student with another tokenizer could not read."""
        return sum((batch.aligned.counts for batch in self.batches if batch.aligned), Counter())


def batches_of(rows: list[Chunk], spec: BatchSpec) -> tuple[Batch, ...]:
    """Return `rows` (chunks of one row) as batches. Raises: TrainError for a row that the student cannot read."""
    rows = [row for row in rows if len(row.tokens) - 1 > spec.skip]
    if spec.tables is not None:
        lengths = [len(row.tokens) for row in rows]
        return tuple(_cross_batch(rows[part], spec) for part in _groups(lengths, spec))
    lengths = [len(row.tokens) for row in rows]
    for row, length in zip(rows, lengths, strict=True):
        if length > spec.max_row_tokens:
            raise _too_long(row.rows[0], length, spec.max_row_tokens)
    return tuple(_batch(rows[part], spec) for part in _groups(lengths, spec))


def require_context(cache: ChunkSource, *, max_row_tokens: int, window_tokens: int | None) -> None:
    """Raise TrainError, naming the first row of more than `max_row_tokens` tokens.

    Chunks are read only where `window_tokens`, the longest window that the dump was told to make, allows such a row.
    """
    if window_tokens is not None and window_tokens <= max_row_tokens:
        return
    for i in range(len(cache)):
        chunk = cache[i]
        lengths = np.diff(chunk.row_starts)
        r = int(lengths.argmax()) if len(lengths) else 0
        if len(lengths) and lengths[r] > max_row_tokens:
            raise _too_long(chunk.rows[r], int(lengths[r]), max_row_tokens)


def _too_long(info: RowInfo, length: int, limit: int) -> TrainError:
    return TrainError(
        f"document {info.document[:12]} window {info.window} has {length} tokens; the student reads at most {limit}; "
        f"dump again with teacher-dump --window-tokens {limit}, or choose another --student"
    )


def _groups(lengths: list[int], spec: BatchSpec) -> list[slice]:
    return groups(lengths, micro_tokens=spec.micro_tokens, layout=spec.layout)


def _batch(rows: list[Chunk], spec: BatchSpec) -> Batch:
    targets = targets_of(
        rows,
        vocab_size=spec.vocab_size,
        target_kind=spec.target_kind,
        temperature=spec.temperature,
        temperature_column=spec.temperature_column,
        skip=spec.skip,
        subset=spec.subset,
        rs_draws=spec.rs_draws,
        seed=spec.seed,
    )
    return pack(rows, targets, skip=spec.skip, layout=spec.layout, widest=spec.widest)


def _cross_batch(rows: list[Chunk], spec: BatchSpec) -> Batch:
    """Return rows for a student with another tokenizer. It may hold some per cent more tokens than the teacher's."""
    assert spec.tables is not None
    found = cross_targets(rows, spec.tables, max_tokens=spec.max_row_tokens)
    if not found.rows:
        return replace(empty_batch(cross=True), aligned=found)
    return pack(found.rows, found.targets, aligned=found, layout=spec.layout, widest=spec.widest)


class Rows:
    """Rows by reference, with the last few chunks at hand."""

    def __init__(self, cache: ChunkSource) -> None:
        self._cache = cache
        self._chunks: OrderedDict[int, Chunk] = OrderedDict()

    def __getitem__(self, ref: RowRef) -> Chunk:
        if ref.chunk not in self._chunks:
            self._chunks[ref.chunk] = self._cache[ref.chunk]
            while len(self._chunks) > _CHUNKS_AT_HAND:
                self._chunks.popitem(last=False)
        self._chunks.move_to_end(ref.chunk)
        return self._chunks[ref.chunk].row(ref.row)


def read_step(rows: Rows, plan: Plan, spec: BatchSpec, *, step: int, rank: int = 0, world_size: int = 1) -> Step:
    """Return global step `step` as `rank` sees it."""
    found = [rows[ref] for ref in rows_of_step(plan, step=step, rank=rank, world_size=world_size)]
    kept = [row for row in found if not is_held_out(row.rows[0].document, fraction=spec.held_out)]
    if spec.layout == "padded":  # rows of one length leave no padding
        kept.sort(key=lambda row: -len(row.tokens))
    return Step(number=step, batches=batches_of(kept, spec))


class Stream:
    """Steps `first` to `last` (exclusive), read ahead by a thread. Use as a context manager; iterate once."""

    def __init__(
        self,
        cache: ChunkSource,
        plan: Plan,
        spec: BatchSpec,
        *,
        first: int,
        last: int,
        prefetch: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._queue: queue.Queue[Step | BaseException] = queue.Queue(maxsize=prefetch)
        self._stop = threading.Event()
        self._count = max(0, last - first)

        def work() -> None:
            rows = Rows(cache)
            try:
                for number in range(first, last):
                    made = read_step(rows, plan, spec, step=number, rank=rank, world_size=world_size)
                    if not self._put(made):
                        return
            except BaseException as error:  # handed to the consumer, who raises it
                self._put(error)

        self._thread = threading.Thread(target=work, name="reader", daemon=True)

    def _put(self, item: Step | BaseException) -> bool:
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
