"""What is one optimiser step? Batches in, one update out, normalised by the number of predicted tokens.

The student and its fused loss are one module, so that whatever wraps it (autocast, FSDP) sees one forward pass. The
loss of a step is its sum over positions divided by the number of positions of the whole step, over batches and ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from shards.format.chunk import RowInfo
from student_train.data.packing import Batch, empty_batch
from student_train.errors import TrainError
from student_train.training.distributed import World, whole


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What one step measured: means over its positions, on all ranks."""

    loss: float
    """What was minimised."""
    kd: float | None
    """The divergence, times T^2; None for cross-entropy alone."""
    ce: float
    """Cross-entropy with the realised tokens, nats."""
    positions: int
    """Positions with a target; 0 for a step whose rows are all held out: nothing was updated."""
    stop: bool
    """Whether any rank was asked to stop."""
    parts: dict[str, float] = field(default_factory=dict)
    """Mean term of each other part, for a student with another tokenizer."""
    norms: dict[str, float] = field(default_factory=dict)
    """Norms of the parts' gradients, where they were measured."""


def take_step(
    distiller: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: tuple[Batch, ...],
    *,
    number: int,
    lr: float,
    clip: float,
    world: World,
    stop: bool = False,
    weights: dict[str, float] | None = None,
    measure: bool = False,
) -> StepResult:
    """Do one optimiser step; a collective.

    `weights` are those of the parts of a loss across tokenizers, None for one tokenizer; with `measure` the norms of
    the parts' gradients are measured on each rank's first batch.

    Raises: TrainError, naming rows, before the update if the loss is not finite.
    """
    spec = distiller.spec
    has_kd = spec.divergence is not None and weights is None
    parts = tuple(weights or ("kd", "ce"))
    told = world.gather(([sum(batch.counts[part] for batch in batches) for part in parts], len(batches), stop))
    totals = {part: sum(counts[i] for counts, _, _ in told) for i, part in enumerate(parts)}
    total, most = totals["ce"], max(number for _, number, _ in told)
    stop = any(asked for _, _, asked in told)
    if total == 0:
        return StepResult(loss=0.0, kd=0.0 if has_kd else None, ce=0.0, positions=0, stop=stop)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    scale: Any = 1.0 / total
    if weights is not None:
        scale = {part: weight / max(1, totals[part]) for part, weight in weights.items()}
    sums = dict.fromkeys(parts, 0.0)
    norms: dict[str, float] = {}
    bad: list[RowInfo] = []
    missing = (empty_batch(cross=weights is not None) for _ in range(most - len(batches)))
    for i, batch in enumerate((*batches, *missing)):
        out = distiller(batch.to(world.device), scale, measure and i == 0)
        out.loss.backward()
        for part in parts:
            sums[part] += float(out.terms[part].double().sum())
        if not math.isfinite(sum(sums.values())):
            bad += _bad_rows(batch, out.terms)
        norms = norms or getattr(out, "norms", None) or {}
    gathered = world.gather((sums, bad, norms))
    _require_finite(number, [row for _, rows, _ in gathered for row in rows])
    means = {part: sum(found[part] for found, _, _ in gathered) / max(1, totals[part]) for part in parts}
    norm = nn.utils.clip_grad_norm_(distiller.parameters(), clip if clip > 0 else math.inf)
    length = float(whole(norm))
    if not math.isfinite(length):
        raise TrainError(
            f"step {number}: found a gradient norm of {length} at a finite loss, expected a number; nothing "
            "was updated; lower --learning-rate and name another --out"
        )
    optimizer.step()
    if weights is None:
        weights = {"kd": 1.0 - spec.ce_weight, "ce": spec.ce_weight} if has_kd else {"ce": 1.0}
    return StepResult(
        loss=sum(weight * means[part] for part, weight in weights.items()),
        kd=means["kd"] if has_kd else None,
        ce=means["ce"],
        positions=total,
        stop=stop,
        parts={part: means[part] for part in weights if part not in ("kd", "ce")},
        norms=_mean_norms([found for _, _, found in gathered]) if measure else {},
    )


def _mean_norms(found: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean over ranks of each part's norm, over those that have one."""
    parts = {part: [norms[part] for norms in found if norms.get(part, 0.0) > 0.0] for part in found[0]}
    return {part: sum(norms) / len(norms) for part, norms in parts.items() if norms}


def _require_finite(number: int, bad: list[RowInfo]) -> None:
    if not bad:
        return
    named = ", ".join(f"{row.source}:{row.path} window {row.window} ({row.document[:12]})" for row in bad[:3])
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    raise TrainError(
        f"step {number}: found a loss that is not finite in {named}{more}, expected a number; nothing was updated; "
        "lower --learning-rate, or look at these rows with logit-shards verify"
    )


def _bad_rows(batch: Batch, terms: dict[str, torch.Tensor]) -> list[RowInfo]:
    """Return the rows with a term that is not finite."""
    bad = {part: (~torch.isfinite(term)).nonzero().flatten().tolist() for part, term in terms.items()}
    if batch.aligned is None:
        return _rows_at(batch, bad["kd"] + bad["ce"])
    rows = {info.document: info for info in _rows_at(batch, bad.pop("ce", []))}
    for part, places in bad.items():
        of_row = batch.aligned.row_W if part == "alm" else batch.aligned.row_B
        rows |= {batch.rows[of_row[i]].document: batch.rows[of_row[i]] for i in places}
    return list(rows.values())


def _rows_at(batch: Batch, positions: list[int]) -> list[RowInfo]:
    found, start = [], 0
    places = set(positions)
    for row, count in zip(batch.rows, batch.row_positions, strict=True):
        if any(p in places for p in range(start, start + count)):
            found.append(row)
        start += count
    return found
