"""What is one optimiser step? Batches in, one update out, normalised by the number of predicted tokens.

The student and its fused loss are one module, so that whatever wraps it (autocast, FSDP) sees one forward pass. The
loss of a step is its sum over positions divided by the number of positions of the whole step, over batches and ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from shards.format.chunk import RowInfo
from student_train.config import Config
from student_train.cross_tokenizer.fused_linear import (
    CrossOutput,
    CrossScores,
    cross_loss,
    cross_scores,
    gradient_norms,
)
from student_train.cross_tokenizer.targets import CrossTargets
from student_train.cross_tokenizer.terms import IdOrder
from student_train.data.layout import inputs_of
from student_train.data.packing import Batch, empty_batch
from student_train.errors import TrainError
from student_train.losses.fused_linear import LossOutput, LossSpec, Scores, fused_loss, fused_scores
from student_train.model.head import PLAIN, LogitMap
from student_train.model.probe import last_hidden
from student_train.training.distributed import World, whole


class Distiller(nn.Module):
    """A causal language model whose forward pass ends in a loss instead of logits."""

    def __init__(
        self,
        model: Any,
        spec: LossSpec,
        *,
        dtype: str,
        order: IdOrder | None = None,
        layout: str = "mask",
        logit_map: LogitMap = PLAIN,
    ) -> None:
        super().__init__()
        self.order = order
        self.layout = layout
        self.logit_map = logit_map
        self.model = model
        self.spec = spec
        self.compute_dtype = getattr(torch, dtype)

    def over(self, model: Any) -> Distiller:
        """Return the same loss over another model of the student's class."""
        return Distiller(
            model,
            self.spec,
            dtype=str(self.compute_dtype).removeprefix("torch."),
            order=self.order,
            layout=self.layout,
            logit_map=self.logit_map,
        )

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Return what the projection reads [B * T, H]."""
        device_type = batch.tokens_BT.device.type
        mixed = self.compute_dtype != torch.float32
        inputs = inputs_of(self.model, places_BT=batch.places_BT, attend_B1TT=batch.attend_B1TT, layout=self.layout)
        with torch.autocast(device_type, dtype=self.compute_dtype if mixed else None, enabled=mixed):
            hidden = last_hidden(self.model, batch.tokens_BT, **inputs)
        return hidden.flatten(0, 1)

    def forward(
        self, batch: Batch, scale: float | dict[str, float] | None, measure: bool = False
    ) -> LossOutput | Scores | CrossOutput | CrossScores:
        """Return the loss of a batch, times `scale`; without a scale, its scores.

        A batch of a student with another tokenizer has one scale for each part of the loss; with `measure` the norms
        of the parts' gradients come with it. One entry for all, as wrappers that split parameters gather them for this
        call only.
        """
        head = self.model.get_output_embeddings()
        if isinstance(batch.targets, CrossTargets):
            return self._across(batch, batch.targets, head, scale, measure)
        assert not isinstance(scale, dict)
        if scale is None:
            with torch.no_grad():
                return fused_scores(
                    self.hidden(batch),
                    head.weight,
                    head.bias,
                    index_P=batch.index_P,
                    targets=batch.targets,
                    compute_dtype=self.compute_dtype,
                    logit_map=self.logit_map,
                )
        return fused_loss(
            self.hidden(batch),
            head.weight,
            head.bias,
            index_P=batch.index_P,
            targets=batch.targets,
            spec=self.spec,
            scale=scale,
            compute_dtype=self.compute_dtype,
            logit_map=self.logit_map,
        )

    def _across(
        self, batch: Batch, targets: CrossTargets, head: Any, scales: Any, measure: bool
    ) -> CrossOutput | CrossScores:
        assert self.order is not None
        where = {
            "index_P": batch.index_P,
            "targets": targets,
            "order": self.order,
            "compute_dtype": self.compute_dtype,
            "logit_map": self.logit_map,
        }
        if scales is None:
            with torch.no_grad():
                return cross_scores(self.hidden(batch), head.weight, head.bias, **where)
        hidden = self.hidden(batch)
        out = cross_loss(hidden, head.weight, head.bias, scales=scales, **where)
        if not measure:
            return out
        return replace(out, norms=gradient_norms(hidden, head.weight, bias_V=head.bias, parts=tuple(scales), **where))


def make_optimizer(model: Any, config: Config) -> torch.optim.AdamW:
    """Return AdamW; decay on matrices, none on norms and biases."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
        eps=config.adam_eps,
    )


def learning_rate(config: Config, *, step: int, total: int) -> float:
    """Return the learning rate of step `step` (from 0) of `total`."""
    warm = max(1, round(config.warmup * total))
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    if config.schedule == "cosine":
        done = (step - warm) / max(1, total - warm)
        return config.learning_rate * (0.1 + 0.45 * (1.0 + math.cos(math.pi * done)))
    cooling = max(1, round(0.2 * total))
    return config.learning_rate * min(1.0, (total - step) / cooling)


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
        of_row = batch.aligned.row_C if part == "alm" else batch.aligned.row_B
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
