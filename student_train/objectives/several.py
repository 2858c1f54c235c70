"""Learn from caches whose rows need different objectives, in one run.

Each batch has rows of one objective. A step's loss is the sum of the objectives' losses, each times its share of the
positions with a label in the whole step, over batches and ranks. So every such position counts the same, whichever
objective it has, and the number of them decides what a cache weighs: that is what the order of rows keeps to.

Parts, numbers in the metrics, and norms are those of the objectives, with `/1`, `/2`, ... after the name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from shards.format.chunk import RowInfo
from student_train.data.packing import Batch
from student_train.losses.blockwise import LossOutput
from student_train.objectives.base import CacheObjective, LossScale, ObjectiveState, StudentOutput
from student_train.objectives.row_score import Measure, RowScore

_Value = TypeVar("_Value")


@dataclass(frozen=True, kw_only=True, slots=True)
class SeveralObjectives:
    """An `Objective` made of others, numbered by `Batch.kind`."""

    objectives: tuple[CacheObjective, ...]
    """The objectives, at least two."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of all objectives."""
        return tuple(_named(part, k) for k, each in enumerate(self.objectives) for part in each.parts)

    @property
    def description(self) -> str:
        """The losses in a few words."""
        return "; ".join(f"{k}: {each.description}" for k, each in enumerate(self.objectives, 1))

    @property
    def notice(self) -> str:
        """What is special about each objective."""
        return "; ".join(dict.fromkeys(each.notice for each in self.objectives if each.notice))

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What all objectives measure, so that it can be summed over caches."""
        first, *others = self.objectives
        return tuple(measure for measure in first.measures if all(measure in each.measures for each in others))

    @property
    def relations_layer(self) -> int | None:
        """The layer of the objectives that compare one, which is the same for all of them."""
        return next((each.relations_layer for each in self.objectives if each.relations_layer is not None), None)

    @property
    def longest_row(self) -> int | None:
        """Tokens of the longest row; None where unknown for one objective."""
        longest = [each.longest_row for each in self.objectives]
        known = [tokens for tokens in longest if tokens is not None]
        return max(known) if len(known) == len(longest) else None

    def empty_batch(self) -> Batch:
        """Return a batch of the first objective without a label."""
        return self.objectives[0].empty_batch()

    def initial_state(self) -> ObjectiveState | None:
        """Return a state without measurements."""
        return ObjectiveState(norms={}, left_out={})

    def weights(self, state: ObjectiveState | None) -> dict[str, float]:
        """Return the weights of the parts within their objectives."""
        weights: dict[str, float] = {}
        for k, each in enumerate(self.objectives):
            weights |= _all_named(each.weights(self._state_of(k, state)), k)
        return weights

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of terms of each part."""
        own = _all_named(self.objectives[batch.kind].counts(batch), batch.kind)
        return dict.fromkeys(self.parts, 0) | own

    def total(self, means: dict[str, float], scale: LossScale) -> float:
        """Return the sum of the objectives' losses, each times its share of the positions."""
        scales = [self._scale_of(k, scale) for k in range(len(self.objectives))]
        losses = [each.total(_of(means, k), scales[k]) for k, each in enumerate(self.objectives)]
        return sum(own.share * loss for own, loss in zip(scales, losses, strict=True))

    def measures_norms(self, step: int) -> bool:
        """Return whether an objective measures norms in this step."""
        return any(each.measures_norms(step) for each in self.objectives)

    def next_state(
        self, state: ObjectiveState | None, *, norms: dict[str, float], left_out: dict[str, int]
    ) -> ObjectiveState | None:
        """Return the norms of each objective's next state, and added counts."""
        assert state is not None
        smoothed: dict[str, float] = {}
        for k, each in enumerate(self.objectives):
            after = each.next_state(self._state_of(k, state), norms=_of(norms, k), left_out={})
            smoothed |= {} if after is None else _all_named(after.norms, k)
        counts = {reason: state.left_out.get(reason, 0) + count for reason, count in left_out.items()}
        return ObjectiveState(norms=smoothed, left_out=state.left_out | counts)

    def loss(self, output: StudentOutput, batch: Batch, scale: LossScale, *, measure: bool) -> LossOutput:
        """Return the loss of a batch's own objective, times its share."""
        k = batch.kind
        out = self.objectives[k].loss(output, batch, self._scale_of(k, scale), measure=measure)
        norms = None if out.norms is None else _all_named(out.norms, k)
        return replace(out, terms=_all_named(out.terms, k), norms=norms)

    def rows_with(self, batch: Batch, terms: dict[str, list[int]]) -> list[RowInfo]:
        """Return the rows that terms of the batch's own objective belong to."""
        return self.objectives[batch.kind].rows_with(batch, _of(terms, batch.kind))

    def metrics(self, means: dict[str, float], scale: LossScale) -> dict[str, float]:
        """Return the numbers of each objective that has a position in the step."""
        numbers: dict[str, float] = {}
        for k, each in enumerate(self.objectives):
            own = self._scale_of(k, scale)
            if own.share:
                numbers |= _all_named(each.metrics(_of(means, k), own), k)
        return numbers

    def scores(self, output: StudentOutput, batch: Batch) -> Any:
        """Return the scores of the batch's own objective."""
        return self.objectives[batch.kind].scores(output, batch)

    def row_scores(self, batch: Batch, scores: Any) -> list[RowScore]:
        """Return the row scores of the batch's own objective."""
        return self.objectives[batch.kind].row_scores(batch, scores)

    def _scale_of(self, k: int, scale: LossScale) -> LossScale:
        """Return the scale of one objective; the terms of its "ce" are its positions."""
        positions = sum(scale.totals[_named("ce", j)] for j in range(len(self.objectives)))
        totals = _of(scale.totals, k)
        return LossScale(weights=_of(scale.weights, k), totals=totals, share=totals["ce"] / max(1, positions))

    def _state_of(self, k: int, state: ObjectiveState | None) -> ObjectiveState | None:
        """Return the part of the state that belongs to one objective; None for one without a state."""
        if state is None or self.objectives[k].initial_state() is None:
            return None
        return ObjectiveState(norms=_of(state.norms, k), left_out={})


def _named(part: str, k: int) -> str:
    return f"{part}/{k + 1}"


def _all_named(values: dict[str, _Value], k: int) -> dict[str, _Value]:
    """Return values by name with the number of an objective after each name."""
    return {_named(name, k): value for name, value in values.items()}


def _of(values: dict[str, _Value], k: int) -> dict[str, _Value]:
    """Return the values that belong to an objective, by its own names."""
    end = _named("", k)
    return {name.removesuffix(end): value for name, value in values.items() if name.endswith(end)}
