"""The interface of a training objective.

An objective decides which loss is minimised, what is measured on held-out rows and how the run is described. One for
the rows of a cache (`CacheObjective`) also decides what a batch holds. `choose.py` picks the implementations once, when
a run is built; no other module asks whether student and shards share a tokenizer.

Caches whose rows need different objectives are trained in one run by `several.py`: each batch has rows of one kind
(`Batch.kind`) and goes to its own objective.

Shapes: N places of a batch, P positions with a label, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from shards.format.chunk import Chunk, RowInfo
from student_train.data.packing import Batch, Packing
from student_train.losses.blockwise import LossOutput, Projection
from student_train.objectives.row_score import Measure, RowScore


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentOutput:
    """What an objective sees of the student's forward pass. New kinds of losses add fields here."""

    hidden_NH: torch.Tensor
    """Hidden states that the output projection reads."""
    projection: Projection
    """The output projection."""
    attention_NW: tuple[torch.Tensor, ...] = ()
    """Queries, keys and values of the layer that the objective compares; () without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossScale:
    """How the terms of a step become one number: share * sum over parts of weight * (sum of terms) / (number of terms).

    An objective that combines others has the weights and totals of all their parts.
    """

    weights: dict[str, float]
    """Weight of each part; those of one objective sum to one, but for that of relations, which is added."""
    totals: dict[str, int]
    """Number of terms of each part in the whole step, over batches and ranks."""
    share: float = 1.0
    """Share of the step's positions that the objective has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveState:
    """What an objective accumulates from step to step. Part of every checkpoint."""

    norms: dict[str, float]
    """Smoothed gradient norm of each part; {} before any measurement."""
    left_out: dict[str, int]
    """Counts of text that the student could not read, by reason."""


class Objective(Protocol):
    """What a run learns. Implementations are immutable."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts of the loss."""

    @property
    def description(self) -> str:
        """The loss in a few words."""

    @property
    def notice(self) -> str:
        """A line for the log about what is special; "" without one."""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is measured on held-out rows, apart from the calibration error."""

    @property
    def relations_layer(self) -> int | None:
        """Layer whose queries, keys and values the loss needs, from 0; None for none."""

    @property
    def longest_row(self) -> int | None:
        """Tokens of the longest row in the student's tokens; None where unknown."""

    def empty_batch(self) -> Batch:
        """Return a batch without a label, for a rank with fewer batches than the others."""

    def initial_state(self) -> ObjectiveState | None:
        """Return the state before the first step; None for an objective without one."""

    def weights(self, state: ObjectiveState | None) -> dict[str, float]:
        """Return the weight of each part."""

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of terms of each part in a batch; 0 for parts of another objective."""

    def total(self, means: dict[str, float], scale: LossScale) -> float:
        """Return the loss of a step, from the mean term of each part."""

    def measures_norms(self, step: int) -> bool:
        """Return whether gradient norms are measured in step `step`, counted from 0."""

    def next_state(
        self, state: ObjectiveState | None, *, norms: dict[str, float], left_out: dict[str, int]
    ) -> ObjectiveState | None:
        """Return the state after a step that measured `norms` ({} for none) and left out `left_out`."""

    def loss(self, output: StudentOutput, batch: Batch, scale: LossScale, *, measure: bool) -> LossOutput:
        """Return the loss of a batch; with `measure` also the gradient norms of its parts."""

    def rows_with(self, batch: Batch, terms: dict[str, list[int]]) -> list[RowInfo]:
        """Return the rows that terms belong to, given as indices into the terms of each part."""

    def metrics(self, means: dict[str, float], scale: LossScale) -> dict[str, float]:
        """Return the numbers of a step for `metrics.jsonl`, from the mean term of each part."""

    def scores(self, output: StudentOutput, batch: Batch) -> Any:
        """Return tensors with the scores of a held-out batch, for `row_scores`."""

    def row_scores(self, batch: Batch, scores: Any) -> list[RowScore]:
        """Return the score of each row of a held-out batch, in the order of `batch.rows`."""


class CacheObjective(Objective, Protocol):
    """One way to learn from the rows of a cache. "ce" is one of its parts; its terms are the positions of a batch."""

    def readable(self, rows: list[Chunk]) -> tuple[list[Chunk], Counter[str]]:
        """Return the rows that can be evaluated, and counts of what was left out, by reason."""

    def batches(self, rows: list[Chunk], packing: Packing) -> tuple[Batch, ...]:
        """Return batches to train on. `rows` are chunks of one row each.

        Raises:
            TrainError: The student cannot read a row.
        """

    def held_out_batches(self, rows: list[Chunk], packing: Packing) -> tuple[Batch, ...]:
        """Return batches to evaluate on, with the same targets for every loss. `rows` are readable ones."""


def part_counts(parts: tuple[str, ...], batch: Batch) -> dict[str, int]:
    """Return the number of terms of each part in a batch."""
    counts = batch.targets.counts
    return {part: counts[part] for part in parts}


def weighted_sum(means: dict[str, float], weights: dict[str, float]) -> float:
    """Return the sum of each part's mean term times its weight."""
    return sum(weight * means[part] for part, weight in weights.items())


def rows_at(batch: Batch, positions: list[int]) -> list[RowInfo]:
    """Return the rows of a batch that hold any of `positions` (indices into P)."""
    rows, start = [], 0
    for row, count in zip(batch.rows, batch.row_positions, strict=True):
        if any(start <= position < start + count for position in positions):
            rows.append(row)
        start += count
    return rows
