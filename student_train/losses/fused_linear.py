"""Distillation loss of a student with the teacher's vocabulary, fused with the output projection.

The loss of a position is (1 - ce) T^2 D_T + ce CE: a divergence D at temperature T (`divergences.py`) mixed with the
cross-entropy CE of the label (Hinton et al. 2015). `blockwise.py` computes it without a matrix of positions by
vocabulary.

Shapes: N places of a batch, P positions with a target, p positions of a block, H hidden size, V vocabulary size,
K entries of a position.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from student_train.losses.blockwise import (
    LogitBlock,
    LossOutput,
    Projection,
    blockwise_loss,
    blockwise_scores,
    logit_blocks,
)
from student_train.losses.divergences import divergence_grad
from student_train.losses.sparse_log_softmax import scatter_grad, sparse_log_softmax
from student_train.losses.targets import Targets


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSpec:
    """Settings of the loss."""

    divergence: str | None
    """Name of the divergence; None for cross-entropy alone."""
    ce_weight: float
    """Share of cross-entropy, 0 to 1."""
    temperature: float = 1.0
    """Temperature of the divergence; cross-entropy always has temperature 1."""
    skew: float = 0.1
    """Share of the teacher in the mixture of `bucket-skew-kl`."""


class Scores(NamedTuple):
    """Measures of the student at each position."""

    kl_P: torch.Tensor
    """float32, nats: estimate of KL(teacher || student), that of `forward-kl`."""
    nll_P: torch.Tensor
    """float32, nats: -log probability of the label."""
    same_P: torch.Tensor
    """bool: teacher and student have the same most probable token."""
    confidence_P: torch.Tensor
    """float32: the student's largest probability."""
    hit_P: torch.Tensor
    """bool: the student's most probable token is the label."""


def fused_loss(
    hidden_NH: torch.Tensor,
    projection: Projection,
    *,
    index_P: torch.Tensor,
    targets: Targets,
    spec: LossSpec,
    scale: float,
) -> LossOutput:
    """Return `scale` times the sum of the loss over positions.

    Args:
        hidden_NH: Hidden states that the projection reads.
        projection: The output projection.
        index_P: int64 place of each position among the N, without repeats.
        targets: Targets of the positions.
        spec: Settings of the loss.
        scale: Factor of the loss.

    Returns:
        The loss. `terms` has `kd`, the divergence times T^2 (zeros for cross-entropy alone), and `ce`, both [P].
    """
    loss = _TokenLoss(targets=targets, spec=spec, scale=scale)
    return blockwise_loss(hidden_NH, projection, index_P=index_P, loss=loss)


@dataclass(frozen=True, kw_only=True, slots=True)
class _TokenLoss:
    """The loss as `blockwise_loss` takes it."""

    targets: Targets
    spec: LossSpec
    scale: float

    @property
    def parts(self) -> tuple[str, ...]:
        return ("kd", "ce")

    def blocks(self, vocab_size: int) -> Iterable[LogitBlock]:
        return logit_blocks(len(self.targets), vocab_size, self.targets.ids_PK.device)

    def terms(self, logits_pV: torch.Tensor, block: LogitBlock, *, needs_grad: bool) -> dict[str, torch.Tensor]:
        targets = self.targets.slice(block.start, block.stop)
        if self.spec.divergence is None:
            return _cross_entropy(logits_pV, targets, self.scale, needs_grad=needs_grad)
        return _divergence(logits_pV, targets, self.spec, self.spec.divergence, self.scale, needs_grad=needs_grad)

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        kd_share = 0.0 if self.spec.divergence is None else 1.0 - self.spec.ce_weight
        ce_share = 1.0 - kd_share
        loss = ce_share * terms["ce"].sum() + (kd_share * terms["kd"].sum() if kd_share else 0.0)
        return loss * self.scale


def _cross_entropy(
    logits_pV: torch.Tensor, targets: Targets, scale: float, *, needs_grad: bool
) -> dict[str, torch.Tensor]:
    softmax = sparse_log_softmax(logits_pV, targets)
    zeros_p = torch.zeros_like(softmax.log_tail_p)
    if needs_grad:
        grad_pK = torch.zeros_like(softmax.logp_pK)
        grad_pK[:, 0] = -scale
        scatter_grad(softmax, targets, grad_pK, zeros_p)
    return {"kd": zeros_p, "ce": -softmax.logp_pK[:, 0]}


def _divergence(
    logits_pV: torch.Tensor, targets: Targets, spec: LossSpec, divergence: str, scale: float, *, needs_grad: bool
) -> dict[str, torch.Tensor]:
    T = spec.temperature
    soft_pV = logits_pV if T == 1.0 else logits_pV / T
    soft = sparse_log_softmax(soft_pV, targets)
    kd = divergence_grad(divergence, logp_PK=soft.logp_pK, log_tail_P=soft.log_tail_p, targets=targets, skew=spec.skew)
    hard = soft if T == 1.0 else sparse_log_softmax(logits_pV, targets)
    if needs_grad:
        share = (1.0 - spec.ce_weight) * T**2 * scale
        grad_pK, grad_tail_p = kd.grad_PK * share, kd.grad_tail_P * share
        if T == 1.0:
            grad_pK[:, 0] -= spec.ce_weight * scale
            scatter_grad(soft, targets, grad_pK, grad_tail_p)
        else:
            scatter_grad(soft, targets, grad_pK / T, grad_tail_p / T)
            ce_pK = torch.zeros_like(grad_pK)
            ce_pK[:, 0] = -spec.ce_weight * scale
            scatter_grad(hard, targets, ce_pK, torch.zeros_like(grad_tail_p))
            logits_pV.add_(soft_pV)
    return {"kd": kd.value_P * T**2, "ce": -hard.logp_pK[:, 0]}


def fused_scores(hidden_NH: torch.Tensor, projection: Projection, *, index_P: torch.Tensor, targets: Targets) -> Scores:
    """Return the student's measures at each position; `targets` are those of `linear`.

    Args:
        hidden_NH: Hidden states that the projection reads.
        projection: The output projection.
        index_P: int64 place of each position among the N, without repeats.
        targets: Targets of the positions.
    """

    def score(logits_pV: torch.Tensor, block: LogitBlock) -> Scores:
        part = targets.slice(block.start, block.stop)
        best_p, top_p = logits_pV.max(1)
        softmax = sparse_log_softmax(logits_pV, part)
        kl = divergence_grad("forward-kl", logp_PK=softmax.logp_pK, log_tail_P=softmax.log_tail_p, targets=part)
        return Scores(
            kl_P=kl.value_P,
            nll_P=-softmax.logp_pK[:, 0],
            same_P=top_p == part.top_P,
            confidence_P=(best_p - softmax.log_sum_p).exp(),
            hit_P=top_p == part.ids_PK[:, 0],
        )

    blocks = logit_blocks(len(index_P), len(projection.weight_VH), hidden_NH.device)
    scores = blockwise_scores(hidden_NH, projection, index_P=index_P, blocks=blocks, score=score)
    if scores:
        return Scores(*scores)
    none = hidden_NH.new_zeros(0).float()
    return Scores(none, none, none.bool(), none, none.bool())
