"""Learn from records of a teacher with another tokenizer: losses on text that both models can measure.

Shapes: P student positions, W aligned spans, B boundaries with cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

import shards
from shards.format.chunk import Chunk, RowInfo
from shards.model_files.tokenizer import TokenizerRules
from student_train.config import Config
from student_train.cross_tokenizer.alignment import Turns, align
from student_train.cross_tokenizer.fused_linear import CrossScores, cross_loss, cross_scores, gradient_norms
from student_train.cross_tokenizer.targets import CrossRows, TokenizerPair, cross_targets, no_rows
from student_train.cross_tokenizer.terms import IdOrder
from student_train.cross_tokenizer.vocabulary import END_PIECES, load_vocabulary
from student_train.data.chat_template import StudentTemplate
from student_train.data.packing import Batch, Packing, empty_batch, groups, pack
from student_train.data.row_labels import num_labels
from student_train.errors import TrainError
from student_train.losses import weighting
from student_train.losses.blockwise import LossOutput
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
from student_train.objectives.stored_parts import require_all_parts

MEASURES = (
    Measure(name="chunk_kl", numerator="chunk_kl_sum", denominator="chunks"),
    Measure(name="cell_kl", numerator="cell_kl_sum", denominator="boundaries"),
    BITS_PER_BYTE,
    Measure(name="top1_agreement", numerator="top1_sum", denominator="boundaries"),
)
_ONE_TOKENIZER_DEFAULTS = {"divergence": "forward-kl", "temperature": 1.0, "specialist": ()}
"""Settings that compare token by token, and their values that ask for nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossTokenizer:
    """A `CacheObjective` for a student whose tokens are not the shards'."""

    tables: TokenizerPair
    """Vocabularies and the losses to train."""
    measured: TokenizerPair
    """The same for evaluation: always the cells of the head, so that runs with different losses compare."""
    order: IdOrder
    """The student's ids in an order in which every cell is a range, on the device that trains."""
    parts: tuple[str, ...]
    """Parts of the loss: `ce` first."""
    max_row_tokens: int
    """Most tokens of a row that the student reads; longer rows are cut."""
    skip: int
    """Number of prefix tokens after a row's first token; they are not text."""
    balance: str
    """How parts are weighed, see `losses.weighting`."""
    ce_weight: float
    """Share of cross-entropy under fixed weights."""
    difference: str
    """How the student's tokenizer differs from the shards'."""

    @classmethod
    def of(
        cls, config: Config, student: Student, caches: Sequence[shards.Cache], *, skip: int, device: torch.device
    ) -> CrossTokenizer:
        """Return the objective for caches whose rows are read alike.

        Raises:
            TrainError: A setting needs one tokenizer.
            StudentError: The student's tokenizer belongs to no known family.
        """
        assert student.other_tokenizer is not None
        for cache in caches:
            require_all_parts(cache)
        for name, default in _ONE_TOKENIZER_DEFAULTS.items():
            if config.objective == "kd" and getattr(config, name) != default:
                raise TrainError(
                    f"{name} is {getattr(config, name)}, which compares token by token; the student has another "
                    f"tokenizer than the shards ({student.other_tokenizer}): leave it out, and choose with --across"
                )
        vocabulary = load_vocabulary(student.tokenizer_dir, vocab_size=student.vocab_size)
        layout = caches[0].manifest.layout
        rules = TokenizerRules.load(caches[0].tokenizer_dir)
        table = rules.token_bytes()
        strings = [table.get(i, b"") for i in range(layout.vocab_size)]
        turns = None
        for cache in caches if layout.has_responses else ():
            turns = _turns(student, cache, rules)
        tables = TokenizerPair.of(strings, vocabulary, config.parts_across, turns=turns)
        return cls(
            tables=tables,
            measured=tables.to_measure(),
            order=IdOrder.of(tables.student, tables.roots).to(device),
            parts=config.parts_across,
            max_row_tokens=student.max_row_tokens,
            skip=skip,
            balance=config.balance,
            ce_weight=config.ce_weight,
            difference=student.other_tokenizer,
        )

    @property
    def description(self) -> str:
        """The parts of the loss, and how they are weighed."""
        if len(self.parts) == 1:
            return "cross-entropy"
        how = "by gradient norms" if self.balance == "norms" else f"{self.ce_weight} of it cross-entropy"
        return f"{' + '.join(self.parts[1:])} + cross-entropy, weighed {how}"

    @property
    def notice(self) -> str:
        """Say that the tokenizers differ, and how."""
        return f"the student has another tokenizer than the shards: {self.difference}; learning across tokenizers"

    @property
    def measures(self) -> tuple[Measure, ...]:
        """KL per span and per shared boundary, bits per byte, agreement at shared boundaries."""
        return MEASURES

    @property
    def longest_row(self) -> int | None:
        """None: in the student's tokens a row may be longer than the dump's windows."""
        return None

    @property
    def relations_layer(self) -> int | None:
        """None: no layer is compared."""
        return None

    def readable(self, rows: list[Chunk]) -> tuple[list[Chunk], Counter[str]]:
        """Return the rows that the student's tokenizer gives back unchanged, and what was left out."""
        rows = self._with_labels(rows)
        if not rows:
            return [], Counter()
        tables = self.tables
        alignment = align(rows, tables.strings, tables.student, turns=tables.turns, max_tokens=self.max_row_tokens)
        return [rows[r] for r in alignment.kept], alignment.counts

    def batches(self, rows: list[Chunk], packing: Packing) -> tuple[Batch, ...]:
        """Return batches of aligned rows. One may hold some per cent more tokens than the teacher's rows."""
        return self._batches(rows, packing, self.tables)

    def held_out_batches(self, rows: list[Chunk], packing: Packing) -> tuple[Batch, ...]:
        """Return batches with cells of the head, whatever the run trains."""
        return self._batches(rows, packing, self.measured)

    def _batches(self, rows: list[Chunk], packing: Packing, tables: TokenizerPair) -> tuple[Batch, ...]:
        rows = self._with_labels(rows)
        batches = []
        for part in groups([len(row.tokens) for row in rows], packing):
            aligned = cross_targets(rows[part], tables, max_tokens=self.max_row_tokens)
            firsts = [row.first_label for row in aligned.rows]
            batch = pack(aligned.rows, aligned, packing, first_labels=firsts) if firsts else empty_batch(aligned)
            batches.append(replace(batch, left_out=aligned.left_out))
        return tuple(batches)

    def _with_labels(self, rows: list[Chunk]) -> list[Chunk]:
        return [row for row in rows if num_labels(row, skip=self.skip)]

    def empty_batch(self) -> Batch:
        """Return a batch of one token that predicts nothing."""
        return empty_batch(no_rows())

    def initial_state(self) -> ObjectiveState | None:
        """Return a state without measurements."""
        return ObjectiveState(norms={}, left_out={})

    def weights(self, state: ObjectiveState | None) -> dict[str, float]:
        """Return the weights of `losses.weighting` for the norms so far."""
        assert state is not None
        return weighting.part_weights(self.parts, balance=self.balance, ce_weight=self.ce_weight, norms=state.norms)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of terms of each part."""
        return part_counts(self.parts, batch)

    def total(self, means: dict[str, float], scale: LossScale) -> float:
        """Return the weighted sum of the means."""
        return weighted_sum(means, scale.weights)

    def measures_norms(self, step: int) -> bool:
        """Return whether parts are to be compared in this step."""
        return len(self.parts) > 1 and step % weighting.MEASURE_EVERY == 0

    def next_state(
        self, state: ObjectiveState | None, *, norms: dict[str, float], left_out: dict[str, int]
    ) -> ObjectiveState | None:
        """Return the state with smoothed norms and added counts."""
        assert state is not None
        counts = dict(state.left_out)
        for reason, count in left_out.items():
            counts[reason] = counts.get(reason, 0) + count
        return ObjectiveState(norms=weighting.smooth_norms(state.norms, norms), left_out=counts)

    def loss(self, output: StudentOutput, batch: Batch, scale: LossScale, *, measure: bool) -> LossOutput:
        """Return the sum over parts of weight times mean term."""
        aligned = _aligned(batch)
        scales = {part: scale.share * weight / max(1, scale.totals[part]) for part, weight in scale.weights.items()}
        terms: dict[str, Any] = {"index_P": batch.index_P, "targets": aligned.targets, "order": self.order}
        out = cross_loss(output.hidden_NH, output.projection, scales=scales, **terms)
        if not measure:
            return out
        norms = gradient_norms(output.hidden_NH, output.projection, parts=tuple(scales), **terms)
        return replace(out, norms=norms)

    def rows_with(self, batch: Batch, terms: dict[str, list[int]]) -> list[RowInfo]:
        """Return the rows of terms: positions of `ce`, spans of `alm`, boundaries of the others."""
        aligned = _aligned(batch)
        rows = {info.document: info for info in rows_at(batch, terms.get("ce", []))}
        for part, indices in terms.items():
            if part != "ce":
                row_of_term = aligned.row_W if part == "alm" else aligned.row_B
                rows |= {batch.rows[row_of_term[i]].document: batch.rows[row_of_term[i]] for i in indices}
        return list(rows.values())

    def metrics(self, means: dict[str, float], scale: LossScale) -> dict[str, float]:
        """Return mean and weight of each part."""
        losses = {f"{part}_loss": means[part] for part in self.parts}
        return losses | {f"{part}_weight": weight for part, weight in scale.weights.items()}

    def scores(self, output: StudentOutput, batch: Batch) -> CrossScores:
        """Return the scores of positions, spans and boundaries."""
        return cross_scores(
            output.hidden_NH,
            output.projection,
            index_P=batch.index_P,
            targets=_aligned(batch).targets,
            order=self.order,
        )

    def row_scores(self, batch: Batch, scores: CrossScores) -> list[RowScore]:
        """Return the sums over each row's positions, spans and boundaries."""
        aligned = _aligned(batch)
        nll_P, confidence_P, hit_P, span_W, cell_B, same_B = (t.double().cpu().numpy() for t in scores)
        rows, start = [], 0
        for r, (info, count) in enumerate(zip(batch.rows, batch.row_positions, strict=True)):
            span = slice(start, start + count)
            start += count
            in_row_W, in_row_B = aligned.row_W == r, aligned.row_B == r
            rows.append(
                RowScore(
                    document=info.document,
                    window=info.window,
                    tokens=count,
                    bytes=int(aligned.bytes_R[r]),
                    kl_sum=0.0,
                    nll_sum=float(nll_P[span].sum()),
                    top1_sum=int(same_B[in_row_B].sum()),
                    bins=confidence_bins(confidence_P[span], hit_P[span]),
                    chunk_kl_sum=float(span_W[in_row_W].sum()),
                    chunks=int(in_row_W.sum()),
                    cell_kl_sum=float(cell_B[in_row_B].sum()),
                    boundaries=int(in_row_B.sum()),
                )
            )
        return rows


def _turns(student: Student, cache: shards.Cache, rules: TokenizerRules) -> Turns:
    """Return how responses begin and end; refuse a template that cannot render the first of them."""
    student_rules = TokenizerRules.load(student.tokenizer_dir)
    template = StudentTemplate.load(f"student {student.source}", student.tokenizer_dir)
    if len(cache) and (messages := cache[0].rows[0].messages):
        template.context_ids(messages)
    if template.end_of_turn >= student.vocab_size:
        raise TrainError(
            f"student {student.source}: token {template.end_of_turn} ends a turn, the model has {student.vocab_size} "
            "ids; expected a tokenizer that belongs to the model"
        )
    teacher = StudentTemplate.load("the shards' teacher", cache.tokenizer_dir)
    pieces = {piece for piece in (*END_PIECES, teacher.tokenizer.eos_token) if piece in rules.pieces}
    # An id that ends a text keeps apart from the end of a turn where the student has both.
    special = {token["content"]: int(token["id"]) for token in student_rules.added_tokens if token["special"]}
    ends = {rules.pieces[piece]: special.get(piece, template.end_of_turn) for piece in pieces}
    ends[teacher.end_of_turn] = template.end_of_turn
    known = cache.manifest.layout.vocab_size
    return Turns(template=template, student_of={u: v for u, v in sorted(ends.items()) if u < known})


def _aligned(batch: Batch) -> CrossRows:
    assert isinstance(batch.targets, CrossRows)
    return batch.targets
