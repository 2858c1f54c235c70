"""Learn from records of a teacher that has the student's own tokenizer: a divergence per token and cross-entropy.

Shapes: P positions with a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import shards
from shards.format.chunk import Chunk, RowInfo
from student_train.config import Config
from student_train.data.loader import require_context, row_too_long
from student_train.data.own_template import OwnTemplate
from student_train.data.packing import Batch, Packing, empty_batch, groups, pack
from student_train.data.row_labels import first_label, num_labels
from student_train.errors import TrainError
from student_train.losses.blockwise import LossOutput
from student_train.losses.divergences import target_kind as target_kind_of
from student_train.losses.fused_linear import LossSpec, Scores, fused_loss, fused_scores
from student_train.losses.targets import Targets, TargetSpec, no_targets, targets_of
from student_train.model.loading import Student
from student_train.objectives.base import (
    LossScale,
    ObjectiveState,
    StudentOutput,
    part_counts,
    rows_at,
    weighted_sum,
)
from student_train.objectives.row_score import BITS_PER_BYTE, Measure, RowScore, confidence_bins

MEASURES = (
    Measure(name="kl", numerator="kl_sum", denominator="tokens"),
    BITS_PER_BYTE,
    Measure(name="top1_agreement", numerator="top1_sum", denominator="tokens"),
)

_TOO_LONG = "rows left out: in the student's own template they are longer than it reads"


@dataclass(frozen=True, kw_only=True, slots=True)
class SameTokenizer:
    """A `CacheObjective` for a student whose tokens are the shards'."""

    loss_spec: LossSpec
    """Divergence, temperature and share of cross-entropy."""
    targets: TargetSpec
    """Targets to train on."""
    max_row_tokens: int
    """Longest row that the student can read."""
    longest_row: int | None = None
    """Tokens of the longest window of the dump; None where unknown."""
    template: OwnTemplate | None = None
    """The student's chat template, which renders contexts; None where contexts stay as stored."""

    @classmethod
    def of(cls, config: Config, student: Student, caches: Sequence[shards.Cache], *, skip: int) -> SameTokenizer:
        """Return the objective for caches whose rows are read alike.

        Raises:
            TrainError: The shards lack the temperature, a specialist's id is unknown, or a row is too long.
        """
        column = temperature_column(config, caches[0])
        template = None
        for cache in caches if config.template == "own" else ():
            template = OwnTemplate.of(student.source, student.tokenizer_dir, cache)
        if config.specialist and max(config.specialist) >= student.vocab_size:
            raise TrainError(f"specialist has id {max(config.specialist)}; the student has {student.vocab_size} ids")
        windows = [cache.manifest.settings.get("window_tokens") for cache in caches]
        for cache, window_tokens in zip(caches, windows, strict=True):
            if template is None:  # a row has another length in the student's template: `_as_read`
                require_context(cache, max_row_tokens=student.max_row_tokens, window_tokens=window_tokens)
        known = [tokens for tokens in windows if tokens is not None]
        longest = max(known) if len(known) == len(windows) else None
        return cls(
            loss_spec=LossSpec(
                divergence=config.divergence if config.objective == "kd" else None,
                ce_weight=config.ce_weight,
                temperature=config.temperature,
                skew=config.skew,
            ),
            targets=TargetSpec(
                vocab_size=student.vocab_size,
                target_kind=target_kind_of(config.objective, config.divergence, specialist=bool(config.specialist)),
                temperature=config.temperature,
                temperature_column=column,
                skip=skip,
                subset=config.specialist,
                rs_draws=config.rs_draws,
                seed=config.seed,
            ),
            max_row_tokens=student.max_row_tokens,
            longest_row=longest if template is None else None,
            template=template,
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """`kd` and `ce`; `ce` alone without a divergence."""
        return ("ce",) if self.loss_spec.divergence is None else ("kd", "ce")

    @property
    def description(self) -> str:
        """The loss in a few words."""
        spec = self.loss_spec
        return "cross-entropy" if spec.divergence is None else f"{spec.divergence} + {spec.ce_weight} cross-entropy"

    @property
    def notice(self) -> str:
        """Nothing is special."""
        return ""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """KL to the teacher and agreement per token, bits per byte."""
        return MEASURES

    @property
    def relations_layer(self) -> int | None:
        """None: no layer is compared."""
        return None

    def readable(self, rows: list[Chunk]) -> tuple[list[Chunk], Counter[str]]:
        """Return the rows with a label after the prefix. Its own template makes some too long for the student."""
        rows = self._with_labels(rows)
        kept = rows if self.template is None else [row for row in rows if self._as_read(row) is not None]
        return kept, Counter({_TOO_LONG: len(rows) - len(kept)} if len(kept) < len(rows) else {})

    def batches(self, rows: list[Chunk], packing: Packing) -> tuple[Batch, ...]:
        """Return batches with the targets that the divergence needs."""
        return self._batches(rows, packing, self.targets)

    def held_out_batches(self, rows: list[Chunk], packing: Packing) -> tuple[Batch, ...]:
        """Return batches with the targets of `forward-kl` at temperature 1, whatever the run trains."""
        targets = replace(self.targets, target_kind="linear", temperature=1.0, temperature_column=None)
        return self._batches(rows, packing, targets)

    def _batches(self, rows: list[Chunk], packing: Packing, spec: TargetSpec) -> tuple[Batch, ...]:
        with_labels = self._with_labels(rows)
        rows = [row for row in map(self._as_read, with_labels) if row is not None]
        parts = groups([len(row.tokens) for row in rows], packing)
        firsts = [first_label(row, skip=spec.skip) for row in rows]
        batches = [pack(rows[part], targets_of(rows[part], spec), packing, first_labels=firsts[part]) for part in parts]
        if len(rows) < len(with_labels):
            first, *others = batches or [self.empty_batch()]
            batches = [replace(first, left_out=Counter({_TOO_LONG: len(with_labels) - len(rows)})), *others]
        return tuple(batches)

    def _as_read(self, row: Chunk) -> Chunk | None:
        """Return a row as the student reads it; None where its own template makes it too long."""
        if self.template is not None:
            row = self.template.rendered(row)
        if len(row.tokens) <= self.max_row_tokens:
            return row
        if self.template is None:
            raise row_too_long(row.rows[0], len(row.tokens), self.max_row_tokens)
        return None

    def _with_labels(self, rows: list[Chunk]) -> list[Chunk]:
        return [row for row in rows if num_labels(row, skip=self.targets.skip)]

    def empty_batch(self) -> Batch:
        """Return a batch of one token that predicts nothing."""
        return empty_batch(no_targets())

    def initial_state(self) -> ObjectiveState | None:
        """Return None, as the weights are fixed; with a template of its own, a state that counts rows left out."""
        return None if self.template is None else ObjectiveState(norms={}, left_out={})

    def weights(self, state: ObjectiveState | None) -> dict[str, float]:
        """Return the shares of the configuration."""
        if self.loss_spec.divergence is None:
            return {"ce": 1.0}
        return {"kd": 1.0 - self.loss_spec.ce_weight, "ce": self.loss_spec.ce_weight}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of terms of each part."""
        return part_counts(self.parts, batch)

    def total(self, means: dict[str, float], scale: LossScale) -> float:
        """Return the weighted sum of the means."""
        return weighted_sum(means, scale.weights)

    def measures_norms(self, step: int) -> bool:
        """Return False: the weights are fixed."""
        return False

    def next_state(
        self, state: ObjectiveState | None, *, norms: dict[str, float], left_out: dict[str, int]
    ) -> ObjectiveState | None:
        """Return the state with added counts; None without one."""
        if self.template is None:
            return None
        counts = Counter({} if state is None else state.left_out) + Counter(left_out)
        return ObjectiveState(norms={}, left_out=dict(counts))

    def loss(self, output: StudentOutput, batch: Batch, scale: LossScale, *, measure: bool) -> LossOutput:
        """Return the fused loss; its weights are those of `loss_spec`, and norms are never measured."""
        assert isinstance(batch.targets, Targets)
        out = fused_loss(
            output.hidden_NH,
            output.projection,
            index_P=batch.index_P,
            targets=batch.targets,
            spec=self.loss_spec,
            scale=scale.share / max(1, scale.totals["ce"]),
        )
        return replace(out, terms={part: out.terms[part] for part in self.parts})

    def rows_with(self, batch: Batch, terms: dict[str, list[int]]) -> list[RowInfo]:
        """Return the rows of terms; each term of each part is a position."""
        return rows_at(batch, [position for positions in terms.values() for position in positions])

    def metrics(self, means: dict[str, float], scale: LossScale) -> dict[str, float]:
        """Return the mean of each part."""
        return {f"{part}_loss": means[part] for part in self.parts}

    def scores(self, output: StudentOutput, batch: Batch) -> Scores:
        """Return the scores of each position."""
        assert isinstance(batch.targets, Targets)
        return fused_scores(output.hidden_NH, output.projection, index_P=batch.index_P, targets=batch.targets)

    def row_scores(self, batch: Batch, scores: Scores) -> list[RowScore]:
        """Return the sums over each row's positions."""
        kl_P, nll_P, same_P, confidence_P, hit_P = (t.double().cpu().numpy() for t in scores)
        rows, start = [], 0
        for info, count in zip(batch.rows, batch.row_positions, strict=True):
            span = slice(start, start + count)
            start += count
            rows.append(
                RowScore(
                    document=info.document,
                    window=info.window,
                    tokens=count,
                    bytes=info.byte_end - info.byte_start,
                    kl_sum=float(kl_P[span].sum()),
                    nll_sum=float(nll_P[span].sum()),
                    top1_sum=int(same_P[span].sum()),
                    bins=confidence_bins(confidence_P[span], hit_P[span]),
                )
            )
        return rows


def temperature_column(config: Config, cache: shards.Cache) -> int | None:
    """Return the column of `log_z` at the run's temperature; None for a run that needs none.

    Raises:
        TrainError: The shards do not store that temperature.
    """
    if config.objective != "kd" or config.temperature == 1.0:
        return None
    stored = [round(t, 6) for t in cache.manifest.temperatures]
    if round(config.temperature, 6) not in stored:
        raise TrainError(
            f"temperature is {config.temperature}; the shards store {', '.join(map(str, stored)) or 'none'}; "
            "choose one of those, or 1, or dump again"
        )
    return stored.index(round(config.temperature, 6))
