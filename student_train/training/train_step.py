"""One optimiser step: counts of all ranks, losses and gradients of its batches, then one update.

The loss of a step is, for each part, the sum of terms divided by their number in the whole step, over batches and
ranks; parts are added with their weights. Where a run has several objectives, each one's loss counts by its share of
the step's positions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from shards.format.chunk import RowInfo
from student_train.data.loader import Step
from student_train.data.packing import Batch
from student_train.errors import TrainError
from student_train.losses.blockwise import LossOutput
from student_train.objectives.base import LossScale, Objective
from student_train.training.distributed import World, full_tensor

_POSITIONS = "positions"
"""Key of the number of positions among the counts of parts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateSettings:
    """How one update is computed."""

    lr: float
    """Learning rate."""
    clip: float
    """Largest norm of the gradient; 0 does not clip."""
    weights: dict[str, float]
    """Weight of each part of the loss."""
    measure_norms: bool = False
    """Whether gradient norms of the parts are measured, on each rank's first batch of each objective."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaledBatch:
    """A batch, and how its terms count in the loss of its step."""

    batch: Batch
    """Inputs and targets of one forward pass."""
    scale: LossScale
    """Weights of the parts, and numbers of terms of the whole step."""
    measure_norms: bool
    """Whether gradient norms of the parts are measured."""
    is_last: bool
    """Whether it is the last batch of its step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainStep:
    """One optimiser step as a rank sees it, once all ranks have told their numbers."""

    number: int
    """Global step, from 0."""
    batches: tuple[ScaledBatch, ...]
    """This rank's batches, as many as each other rank has; () for a step without a label, which updates nothing."""
    num_positions: int
    """Positions with a label, of all ranks."""
    scale: LossScale
    """Weight and number of terms of each part."""
    left_out: dict[str, int]
    """Counts of text that the student could not read, by reason, of all ranks."""
    rows: dict[str, int]
    """`data.loader.Step.rows` of all ranks."""
    stop: bool = False
    """Whether any rank was asked to stop."""


def share_step(
    objective: Objective,
    step: Step,
    *,
    world: World,
    weights: dict[str, float],
    measure_norms: bool = False,
    stop: bool = False,
) -> TrainStep:
    """Add up what the ranks have in a step, so that each can scale its own losses. A collective.

    Args:
        objective: What the student learns.
        step: This rank's batches. A rank with fewer than another gets empty ones.
        world: All ranks.
        weights: Weight of each part of the loss.
        measure_norms: Whether the first batch of each objective measures gradient norms.
        stop: Whether this rank was asked to stop.
    """
    batches = step.batches
    left_out = sum((batch.left_out for batch in batches), Counter())
    gathered = world.gather((_counts(objective, batches), len(batches), stop, dict(step.rows), dict(left_out)))
    totals = _add_counts([counts for counts, *_ in gathered])
    positions = totals.pop(_POSITIONS)
    scale = LossScale(weights=weights, totals=totals)
    most = max(number for _, number, *_ in gathered) if positions else 0
    padded = [*batches, *(objective.empty_batch() for _ in range(most - len(batches)))][:most]
    first = {batch.kind: i for i, batch in reversed(list(enumerate(padded)))}
    return TrainStep(
        number=step.number,
        batches=tuple(
            ScaledBatch(
                batch=batch,
                scale=scale,
                measure_norms=measure_norms and first[batch.kind] == i,
                is_last=i == most - 1,
            )
            for i, batch in enumerate(padded)
        ),
        num_positions=positions,
        scale=scale,
        left_out=_add_counts([left_out for *_, left_out in gathered]),
        rows=_add_counts([rows for *_, rows, _ in gathered]),
        stop=any(asked for _, _, asked, *_ in gathered),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What one step measured, on all ranks."""

    loss: float
    """Weighted sum of the parts' mean terms: what was minimised."""
    means: dict[str, float]
    """Mean term of each part; {} for a step without positions."""
    positions: int
    """Positions with a label; 0 for a step whose rows are all held out. Such a step updates nothing."""
    scale: LossScale
    """Weight and number of terms of each part."""
    stop: bool
    """Whether any rank was asked to stop."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Counts of text that the student could not read, by reason."""
    norms: dict[str, float] = field(default_factory=dict)
    """Norms of the parts' gradients, where they were measured."""
    rows: dict[str, int] = field(default_factory=dict)
    """`Step.rows` of all ranks."""


def take_step(
    distiller: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: tuple[Batch, ...],
    *,
    number: int,
    update: UpdateSettings,
    world: World,
    stop: bool = False,
    rows: Mapping[str, int] = MappingProxyType({}),
) -> StepResult:
    """Do one optimiser step. A collective.

    Args:
        distiller: The student and its objective.
        optimizer: Optimiser of the student's parameters.
        batches: This rank's batches.
        number: Number of the step, for errors.
        update: How the update is computed.
        world: All ranks.
        stop: Whether this rank was asked to stop.
        rows: This rank's `Step.rows`.

    Raises:
        TrainError: The loss or the gradient is not finite. Nothing was updated.
    """
    objective: Objective = distiller.objective
    weights = update.weights
    read = Step(number=number - 1, batches=batches, rows=dict(rows))
    step = share_step(objective, read, world=world, weights=weights, measure_norms=update.measure_norms, stop=stop)
    measured: dict[str, Any] = {"scale": step.scale, "stop": step.stop, "left_out": step.left_out, "rows": step.rows}
    if step.num_positions == 0:
        return StepResult(loss=0.0, means={}, positions=0, **measured)
    for group in optimizer.param_groups:
        group["lr"] = update.lr
    optimizer.zero_grad(set_to_none=True)
    sums, bad, norms = _accumulate(distiller, step, device=world.device)
    results = world.gather((sums, bad, norms))
    _require_finite(number, [row for _, rows, _ in results for row in rows])
    means = {part: sum(sums[part] for sums, _, _ in results) / max(1, step.scale.totals[part]) for part in weights}
    norm = nn.utils.clip_grad_norm_(distiller.parameters(), update.clip if update.clip > 0 else math.inf)
    _require_finite_gradient(number, float(full_tensor(norm)))
    optimizer.step()
    return StepResult(
        loss=objective.total(means, step.scale),
        means=means,
        positions=step.num_positions,
        norms=mean_norms([norms for _, _, norms in results]) if update.measure_norms else {},
        **measured,
    )


def _counts(objective: Objective, batches: tuple[Batch, ...]) -> dict[str, int]:
    """Return the number of terms of each part, and of positions, in the batches of a rank."""
    counts = _add_counts([dict.fromkeys(objective.parts, 0), *(objective.counts(batch) for batch in batches)])
    return counts | {_POSITIONS: sum(batch.num_positions for batch in batches)}


def _accumulate(
    distiller: nn.Module, step: TrainStep, *, device: torch.device
) -> tuple[dict[str, float], list[RowInfo], dict[str, float]]:
    """Add up the gradients of the batches of a step.

    Returns:
        The sum of each part's terms, the rows with a term that is not finite, and the norms of each objective's first
        batch.
    """
    sums = dict.fromkeys(step.scale.weights, 0.0)
    norms: dict[str, float] = {}
    bad: list[RowInfo] = []
    for scaled in step.batches:
        batch = scaled.batch
        out: LossOutput = distiller(batch.to(device), scaled.scale, scaled.measure_norms)
        out.loss.backward()
        for part, term in out.terms.items():
            sums[part] += float(term.double().sum())
        if not math.isfinite(sum(sums.values())):
            indices = {part: (~torch.isfinite(term)).nonzero().flatten().tolist() for part, term in out.terms.items()}
            bad += distiller.objective.rows_with(batch, indices)
        norms |= out.norms or {}
    return sums, bad, norms


def _add_counts(counts: list[dict[str, int]]) -> dict[str, int]:
    """Return the sums of counts by key, in the order of first appearance."""
    total: dict[str, int] = {}
    for rank_counts in counts:
        for key, count in rank_counts.items():
            total[key] = total.get(key, 0) + count
    return total


def mean_norms(norms_by_rank: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean over ranks of each part's norm, over those that have one."""
    names = dict.fromkeys(part for norms in norms_by_rank for part in norms)
    parts = {part: [norms[part] for norms in norms_by_rank if norms.get(part, 0.0) > 0.0] for part in names}
    return {part: sum(norms) / len(norms) for part, norms in parts.items() if norms}


def _require_finite_gradient(number: int, norm: float) -> None:
    if not math.isfinite(norm):
        raise TrainError(
            f"step {number}: found a gradient norm of {norm} at a finite loss, expected a number; nothing "
            "was updated; lower --learning-rate and name another --out"
        )


def _require_finite(number: int, bad: list[RowInfo]) -> None:
    if not bad:
        return
    named = ", ".join(f"{row.source}:{row.path} window {row.window} ({row.document[:12]})" for row in bad[:3])
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    raise TrainError(
        f"step {number}: found a loss that is not finite in {named}{more}, expected a number; nothing was updated; "
        "lower --learning-rate, or look at these rows with logit-shards verify"
    )
