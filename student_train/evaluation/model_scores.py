"""Score any model on rows of a cache: what the records say of it, with no teacher in memory.

Shapes: P positions of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

import shards
from shards.format.chunk import Chunk
from student_train.config import Config
from student_train.data.packing import Batch
from student_train.errors import TrainError
from student_train.evaluation.held_out import HeldOutSet, score
from student_train.losses.fused_linear import Scores
from student_train.losses.targets import Targets
from student_train.model.evaluated import evaluated_model
from student_train.model.head import find_logit_map
from student_train.model.loading import Student
from student_train.objectives.choose import choose_objective
from student_train.objectives.distiller import Distiller, layout_on
from student_train.objectives.row_score import Measure, RowScore
from student_train.outputs.progress import Progress
from student_train.training.distributed import World

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class PositionScores:
    """Scores of each position of a row, for a model with the teacher's tokenizer."""

    labels_P: npt.NDArray[np.int64]
    """Ids that the positions predict."""
    kl_P: Float32
    """Estimated KL(teacher || model), nats; a single value may be negative, as it rests on a sparse record."""
    nll_P: Float32
    """-log probability of the label, nats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelScores:
    """Scores of one model on rows of a cache."""

    source: str
    """The model, for the record."""
    parameters: int
    """Number of its parameters."""
    tokenizer: str | None
    """How its tokenizer differs from the shards'; None where it is the same."""
    measures: tuple[Measure, ...]
    """What is measured."""
    rows: tuple[RowScore, ...]
    """Sums of each row that the model reads, in the order of the cache."""
    positions: tuple[PositionScores, ...]
    """Scores of the positions of each row; () for a model with another tokenizer."""
    left_out: dict[str, int]
    """Counts of what the model does not read, by reason."""


def score_model(
    name: str,
    config: Config,
    cache: shards.Cache,
    rows: Sequence[Chunk],
    *,
    world: World,
    log: Callable[[str], None],
) -> ModelScores:
    """Return the scores of a model.

    Args:
        name: Short name, hub id, folder, or GGUF file.
        config: Settings, with `dtype` settled; those of training have no effect.
        cache: The cache of the rows.
        rows: Rows to score on, as chunks of one row each.
        world: The device. One process.
        log: Prints a line.

    Raises:
        TrainError: The model is unavailable, does not fit the shards, or reads none of the rows.
    """
    teacher, tokenizer_dir = cache.manifest.teacher, cache.tokenizer_dir
    with evaluated_model(name, teacher=teacher, shards_tokenizer=tokenizer_dir, log=log) as student:
        return _score(student, config, cache, list(rows), world=world, log=log)


def _score(
    student: Student,
    config: Config,
    cache: shards.Cache,
    rows: list[Chunk],
    *,
    world: World,
    log: Callable[[str], None],
) -> ModelScores:
    objective = choose_objective(_to_measure(config, cache), student, [cache], device=world.device)
    rows, left_out = objective.readable(rows)
    if not rows:
        raise TrainError(
            f"{config.shard_paths}: found no row that {student.source} reads ({_reasons(left_out)}), expected at "
            "least one; evaluate on more rows with --evaluate-on all, or another model"
        )
    layout, model = layout_on(world.device, student, objective), student.model
    distiller = Distiller(
        model, objective, dtype=config.dtype, layout=layout.name, logit_map=find_logit_map(model)
    ).eval()
    held_out = HeldOutSet(rows, objective, layout.packing(config.micro_tokens))
    total = sum(batch.num_positions for batch in held_out.batches(world))
    positions: list[PositionScores] = []
    with Progress(f"scoring {student.source}", total, log=log, unit="tokens", shown=config.progress) as progress:

        def scorer(batch: Batch) -> Any:
            scores = distiller(batch.to(world.device), None)
            if isinstance(scores, Scores):
                positions.extend(_positions(batch, scores))
            return scores

        row_scores = score(held_out, scorer, on_tokens=lambda tokens: progress.advance(steps=tokens, tokens=tokens))
    return ModelScores(
        source=student.source,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tokenizer=student.other_tokenizer,
        measures=objective.measures,
        rows=tuple(row_scores),
        positions=tuple(positions),
        left_out=dict(left_out),
    )


def _to_measure(config: Config, cache: shards.Cache) -> Config:
    """Return settings without those that only a loss needs: measures are the same for every loss."""
    template = config.template if cache.manifest.layout.has_responses else "stored"  # documents have none to render
    return replace(
        config, relations_weight=0.0, divergence="forward-kl", temperature=1.0, specialist=(), template=template
    )


def _reasons(left_out: Mapping[str, int]) -> str:
    return "; ".join(f"{reason}: {count}" for reason, count in left_out.items()) or "none has a label"


def _positions(batch: Batch, scores: Scores) -> list[PositionScores]:
    """Return the scores of the positions of each row of a batch."""
    assert isinstance(batch.targets, Targets)
    labels_P = batch.targets.ids_PK[:, 0].cpu().numpy()
    kl_P, nll_P = (tensor.float().cpu().numpy() for tensor in (scores.kl_P, scores.nll_P))
    ends = np.cumsum(batch.row_positions)
    spans = [slice(end - count, end) for end, count in zip(ends, batch.row_positions, strict=True)]
    return [PositionScores(labels_P=labels_P[span], kl_P=kl_P[span], nll_P=nll_P[span]) for span in spans]
