"""Measure a student on documents that it never trained on.

Each held-out row gives sums over its positions (`RowScore`). Figures are ratios of sums over rows; `measures` of the
objective say which. A run on several caches has a set of rows for each, and scores one set after another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.format.chunk import Chunk
from student_train.data.hashing import HeldOutRule
from student_train.data.loader import ChunkSource
from student_train.data.packing import Batch, Packing
from student_train.evaluation.intervals import DocumentSums, Interval, known_figures
from student_train.objectives.base import CacheObjective
from student_train.objectives.row_score import Measure, RowScore
from student_train.training.distributed import World


def held_out_rows(cache: ChunkSource, *, rule: HeldOutRule, max_tokens: int) -> list[Chunk]:
    """Return the first held-out rows of the cache, in its order.

    Chunks are read until there are enough rows, so a large cache is not read whole.

    Args:
        cache: The cache.
        rule: Which rows are held out.
        max_tokens: Most tokens of all rows together; a single longer row is returned nevertheless.
    """
    rows: list[Chunk] = []
    tokens = 0
    if rule.fraction <= 0.0 or max_tokens <= 0:
        return rows
    for i in range(len(cache)):
        chunk = cache[i]
        for r, info in enumerate(chunk.rows):
            if rule.holds_out(info):
                row = chunk.row(r)
                if rows and tokens + len(row.tokens) > max_tokens:
                    return rows
                rows.append(row)
                tokens += len(row.tokens)
    return rows


class HeldOutSet:
    """Held-out rows of one cache. Their batches are made at the first evaluation and kept for later ones."""

    def __init__(self, rows: Sequence[Chunk], objective: CacheObjective, packing: Packing, *, kind: int = 0) -> None:
        """Keep readable rows.

        Args:
            rows: Rows that `objective.readable` returned.
            objective: What is measured.
            packing: How rows share batches.
            kind: Number of the objective in the run.
        """
        self.rows = tuple(rows)
        self.objective = objective
        self._packing, self._kind = packing, kind
        self._batches: dict[tuple[int, int], tuple[Batch, ...]] = {}

    def batches(self, world: World) -> tuple[Batch, ...]:
        """Return the batches of a rank. Ranks take turns row by row."""
        share = (world.rank, world.size)
        if share not in self._batches:
            rows = list(self.rows[world.rank :: world.size])
            batches = self.objective.held_out_batches(rows, self._packing)
            self._batches[share] = tuple(replace(batch, kind=self._kind) for batch in batches)
        return self._batches[share]

    def empty_batch(self) -> Batch:
        """Return a batch without a label, for a rank with fewer batches than the others."""
        return replace(self.objective.empty_batch(), kind=self._kind)


def score(
    held_out: HeldOutSet,
    scorer: Callable[[Batch], Any],
    *,
    world: World | None = None,
    on_tokens: Callable[[int], None] = lambda tokens: None,
) -> list[RowScore]:
    """Return the scores of held-out rows, in their order, on every rank. A collective.

    Args:
        held_out: The rows.
        scorer: Function from a batch to what `Objective.scores` returns for it.
        world: Ranks that share the rows; None for one process.
        on_tokens: Called with the number of positions of each finished batch, as often on every rank.
    """
    world = world or World()
    objective, batches = held_out.objective, held_out.batches(world)
    most = max(world.gather(len(batches)))
    scores: list[RowScore] = []
    for batch in batches:
        scores += objective.row_scores(batch, scorer(batch))
        on_tokens(batch.num_positions)
    for _ in range(most - len(batches)):
        scorer(held_out.empty_batch())
        on_tokens(0)
    parts = world.gather(scores)
    return [parts[i % world.size][i // world.size] for i in range(len(held_out.rows))]


def summary(scores: Sequence[RowScore], measures: Sequence[Measure]) -> dict[str, Interval] | None:
    """Return the `Interval` of each measure that is known, and of the calibration error; None without rows."""
    if not scores:
        return None
    sums = DocumentSums([s.document for s in scores])
    above = [[getattr(s, measure.numerator) / measure.unit for measure in measures] for s in scores]
    below = [[getattr(s, measure.denominator) for measure in measures] for s in scores]
    figures = dict(zip((measure.name for measure in measures), sums.ratios(above, below), strict=True))
    return {**known_figures(figures), "calibration_error": _calibration(sums, [s.bins for s in scores])}


def _calibration(sums: DocumentSums, bins: list[list[list[float]]]) -> Interval:
    """Return the expected calibration error: mean |confidence - hits| over bins, weighted by their positions.

    Biased upwards where bins are few: compare models on the same rows, not with zero.
    """

    def error(bins: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        gap: npt.NDArray[np.float64] = np.abs(bins[..., 1] - bins[..., 2]).sum(-1) / bins[..., 0].sum(-1)
        return gap

    by_document = sums.by_document(bins)
    (interval,) = sums.intervals(error(by_document.sum(axis=0))[None], error(sums.resampled(by_document))[:, None])
    return interval


def by_set(scores: Sequence[RowScore], held_out: Sequence[HeldOutSet]) -> list[list[RowScore]]:
    """Return the scores of each set; `scores` are those of all sets, one after another."""
    left = iter(scores)
    return [list(itertools.islice(left, len(each.rows))) for each in held_out]


def set_lines(
    after: Sequence[RowScore], before: Sequence[RowScore], held_out: Sequence[HeldOutSet]
) -> list[dict[str, object]]:
    """Return the lines of `held_out.jsonl`; with several caches each line has the number of its cache, from 1."""
    parts = zip(by_set(after, held_out), by_set(before, held_out), held_out, strict=True)
    found = []
    for number, (now, then, each) in enumerate(parts, 1):
        named: dict[str, object] = {"cache": number} if len(held_out) > 1 else {}
        found += [{**named, **line} for line in lines(now, then, each.objective.measures)]
    return found


def lines(
    after: Iterable[RowScore], before: Iterable[RowScore], measures: Sequence[Measure]
) -> list[dict[str, object]]:
    """Return the lines of one cache: each row's sums after training, and those of the measures before."""
    sums = [measure.numerator for measure in measures]
    rows = []
    for now, then in zip(after, before, strict=True):
        row = {name: value for name, value in asdict(now).items() if value is not None and name != "bins"}
        if "kl_sum" not in sums:
            del row["kl_sum"]
        rows.append({**row, **{f"{name}_before": getattr(then, name) for name in sums}})
    return rows
