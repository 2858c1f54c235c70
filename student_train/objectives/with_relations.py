"""Another objective, and beside it the relations of one layer.

The loss of a step is that of the other objective plus the weight times the mean relation term over all positions of the
step that have relations. Rows without relations add exactly nothing. Where a run has several objectives, the sum counts
by the objective's share of the step's positions, as each of them does.

Shapes: N places of a batch, S positions with relations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

import shards
from shards.format.chunk import Chunk, RowInfo
from shards.format.relations import RelationLayout
from student_train.config import Config
from student_train.data.packing import Batch, BatchTargets, Packing
from student_train.errors import TrainError
from student_train.losses.blockwise import LossOutput
from student_train.losses.relations import RelationTargets, relation_loss
from student_train.model.loading import Student
from student_train.objectives.attention_vectors import require_vectors
from student_train.objectives.base import CacheObjective, LossScale, ObjectiveState, StudentOutput, part_counts
from student_train.objectives.row_score import Measure, RowScore

PART = "relations"
"""Name of the part of the loss; its terms are the positions with relations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetsWithRelations:
    """Targets of the other objective, and vectors."""

    base: BatchTargets
    relations: RelationTargets

    @property
    def counts(self) -> dict[str, int]:
        """Number of terms of each part of the loss."""
        return {**self.base.counts, PART: self.relations.num_positions}

    def to(self, device: torch.device) -> TargetsWithRelations:
        """Return the targets on `device`."""
        return TargetsWithRelations(base=self.base.to(device), relations=self.relations.to(device))


@dataclass(frozen=True, kw_only=True, slots=True)
class WithRelations:
    """A `CacheObjective` that adds relations to another one."""

    base: CacheObjective
    """The other objective, of a student with the shards' tokenizer."""
    layout: RelationLayout
    """What the shards hold."""
    weight: float
    """Weight of the mean relation term, beside those of the other parts."""
    relations_layer: int
    """Layer of the student, from 0."""
    rows_line: str
    """How many rows have relations; "" where it is not known yet."""

    @classmethod
    def of(
        cls, base: CacheObjective, config: Config, student: Student, caches: Sequence[shards.Cache]
    ) -> WithRelations:
        """Return the objective for caches whose rows are read alike, and whose relations have one layout.

        Raises:
            TrainError: The shards have no relations, or the student no layer for them.
        """
        layout = caches[0].manifest.layout.relations
        if layout is None:
            raise TrainError(
                f"relations-weight is {config.relations_weight:g}; found no relations in {caches[0].store.root}, "
                "expected a cache of teacher-dump --relations LAYER; dump again, or leave the option out"
            )
        counts = [cache.manifest.report.get("relation_rows") for cache in caches]
        rows = sum(cache.rows for cache in caches)
        return cls(
            base=base,
            layout=layout,
            weight=config.relations_weight,
            relations_layer=require_vectors(student.model, config.relations_layer, heads=layout.heads),
            rows_line="" if None in counts else f"{sum(filter(None, counts)):,} of {rows:,} rows have them",
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """Those of the other objective, and `relations`."""
        return (*self.base.parts, PART)

    @property
    def description(self) -> str:
        """The loss in a few words."""
        return f"{self.base.description} + {self.weight:g} relations"

    @property
    def notice(self) -> str:
        """Say which layers are compared, and how many rows have relations."""
        line = (
            f"relations: layer {self.layout.layer} of the teacher and layer {self.relations_layer} of the student, "
            f"{self.layout.heads} relation heads"
        )
        return "; ".join(filter(None, (self.base.notice, line, self.rows_line)))

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Those of the other objective."""
        return self.base.measures

    @property
    def longest_row(self) -> int | None:
        """That of the other objective."""
        return self.base.longest_row

    def readable(self, rows: list[Chunk]) -> tuple[list[Chunk], Counter[str]]:
        """Return what the other objective can evaluate."""
        return self.base.readable(rows)

    def batches(self, rows: list[Chunk], packing: Packing) -> tuple[Batch, ...]:
        """Return the batches of the other objective with the vectors of their rows."""
        remaining = iter(rows)  # batches keep the order of the rows, and leave some out
        return tuple(self._with_vectors(batch, remaining) for batch in self.base.batches(rows, packing))

    def _with_vectors(self, batch: Batch, remaining: Iterator[Chunk]) -> Batch:
        vectors: list[tuple[torch.Tensor, ...]] = []
        spans, start = [], 0
        for info, count in zip(batch.rows, batch.row_positions, strict=True):
            stored = next(row for row in remaining if _key(row.rows[0]) == _key(info)).relations
            if count and stored is not None and len(stored.codes):
                # Positions that predict the prefix have no label: the last `count` positions have one.
                vectors.append(tuple(torch.from_numpy(kind[-count:]) for kind in stored.vectors()))
                spans.append((int(batch.index_P[start]), count))
            start += count
        targets = self._targets(batch.targets, vectors, tuple(spans))
        return replace(batch, targets=targets)

    def _targets(
        self, base: BatchTargets, vectors: list[tuple[torch.Tensor, ...]], spans: tuple[tuple[int, int], ...]
    ) -> TargetsWithRelations:
        none = tuple(torch.zeros(0, self.layout.heads, width) for width in self.layout.stored_widths)
        joined = tuple(torch.cat(kind) for kind in zip(none, *vectors, strict=True))
        return TargetsWithRelations(
            base=base, relations=RelationTargets(vectors=joined, widths=self.layout.widths, spans=spans)
        )

    def held_out_batches(self, rows: list[Chunk], packing: Packing) -> tuple[Batch, ...]:
        """Return those of the other objective: relations are not measured on held-out rows."""
        return self.base.held_out_batches(rows, packing)

    def empty_batch(self) -> Batch:
        """Return a batch that predicts nothing and has no relations."""
        batch = self.base.empty_batch()
        return replace(batch, targets=self._targets(batch.targets, [], ()))

    def initial_state(self) -> ObjectiveState | None:
        """Return that of the other objective."""
        return self.base.initial_state()

    def weights(self, state: ObjectiveState | None) -> dict[str, float]:
        """Return the weights of the other objective, and that of the relations beside them."""
        return {**self.base.weights(state), PART: self.weight}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of terms of each part."""
        return part_counts(self.parts, batch)

    def total(self, means: dict[str, float], scale: LossScale) -> float:
        """Return the loss of the other objective, and the weighted mean relation term."""
        return self.base.total(means, _without_part(scale)) + self.weight * means[PART]

    def measures_norms(self, step: int) -> bool:
        """Return what the other objective measures."""
        return self.base.measures_norms(step)

    def next_state(
        self, state: ObjectiveState | None, *, norms: dict[str, float], left_out: dict[str, int]
    ) -> ObjectiveState | None:
        """Return that of the other objective."""
        return self.base.next_state(state, norms=norms, left_out=left_out)

    def loss(self, output: StudentOutput, batch: Batch, scale: LossScale, *, measure: bool) -> LossOutput:
        """Return the loss of the other objective plus the relations', normalised over the positions of the step."""
        targets = batch.targets
        assert isinstance(targets, TargetsWithRelations)
        out = self.base.loss(output, _without_vectors(batch), _without_part(scale), measure=measure)
        if not targets.relations.spans:
            return replace(out, terms={**out.terms, PART: output.hidden_NH.new_zeros(0).float()})
        total, terms_S = relation_loss(output.attention_NW, targets.relations)
        loss = out.loss + scale.share * self.weight / scale.totals[PART] * total
        return replace(out, loss=loss, terms={**out.terms, PART: terms_S})

    def rows_with(self, batch: Batch, terms: dict[str, list[int]]) -> list[RowInfo]:
        """Return the rows of terms."""
        targets = batch.targets
        assert isinstance(targets, TargetsWithRelations)
        places = [place + i for place, count in targets.relations.spans for i in range(count)]
        position_of = {place: p for p, place in enumerate(batch.index_P.tolist())}
        base_terms = {part: list(indices) for part, indices in terms.items() if part != PART}
        base_terms["ce"] += [position_of[places[term]] for term in terms[PART]]
        return self.base.rows_with(_without_vectors(batch), base_terms)

    def metrics(self, means: dict[str, float], scale: LossScale) -> dict[str, float]:
        """Return the numbers of the other objective, and the mean relation term."""
        return {**self.base.metrics(means, _without_part(scale)), "relations_loss": means[PART]}

    def scores(self, output: StudentOutput, batch: Batch) -> Any:
        """Return the scores of the other objective."""
        return self.base.scores(output, _without_vectors(batch))

    def row_scores(self, batch: Batch, scores: Any) -> list[RowScore]:
        """Return the scores of the other objective."""
        return self.base.row_scores(_without_vectors(batch), scores)


def _without_vectors(batch: Batch) -> Batch:
    """Return a batch of the other objective: held-out batches are its own, but not the empty ones among them."""
    targets = batch.targets
    return replace(batch, targets=targets.base) if isinstance(targets, TargetsWithRelations) else batch


def _without_part(scale: LossScale) -> LossScale:
    """Return the scale of the other objective."""
    weights = {part: weight for part, weight in scale.weights.items() if part != PART}
    totals = {part: count for part, count in scale.totals.items() if part != PART}
    return replace(scale, weights=weights, totals=totals)


def _key(info: RowInfo) -> tuple[str, int]:
    return info.document, info.window
