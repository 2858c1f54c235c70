"""How do hidden states become a loss without a matrix of positions by vocabulary?

Output projection and loss run together over chunks of positions. A chunk's logits are turned, in place, into their
own gradient, which is multiplied into the gradients of hidden states and projection at once; nothing of size
[positions, vocabulary] outlives its chunk, forward or backward. Gradients are computed in the forward pass and handed
out in the backward pass, since a loss is summed and its outer derivative a number.

Shapes: N places of the batch (padding too), P positions with a target, p positions of a chunk, H hidden, V vocabulary,
K entries of a position.

Arithmetic: the projections run in `compute_dtype`; logits, log-probabilities, losses and their gradients in float32,
and so do sums over chunks. Deterministic: chunks in order, no atomic additions (no id is added to twice).

With x the logits, S the student's probabilities, g the loss' derivatives by log S of the entries, G their sum, u its
derivative by the log of the student's mass T outside the head:
    d loss / d x_v = g_v - (G + u) S_v + [v outside the head] u S_v / T
The tail's sum is taken by itself, so T keeps its digits when the head holds nearly all, and S_v / T never overflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from student_train.losses.divergences import divergence_grad
from student_train.losses.targets import Targets
from student_train.model.head import PLAIN, LogitMap

BLOCK_ELEMENTS = 2**25
"""Logits of one chunk: 128 MiB of float32. Fewer cost speed, more memory (benchmarks/fused_loss.py)."""
_VOCAB_BLOCK = 8192  # rows of the projection's gradient that are summed at a time when it is not float32


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSpec:
    """Which loss? The part of the configuration that this file needs."""

    divergence: str | None
    """Name of the divergence, None for cross-entropy alone."""
    ce_weight: float
    """Share of cross-entropy."""
    temperature: float = 1.0
    """Softening of the divergence; the cross-entropy is never softened."""
    skew: float = 0.1
    """See `losses.py`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossOutput:
    """The loss and its parts."""

    loss: torch.Tensor
    """Scalar float32: scale times the sum over positions; carries the gradient."""
    kd_P: torch.Tensor
    """float32: the divergence at each position, times T^2; zeros for cross-entropy alone."""
    ce_P: torch.Tensor
    """float32: -log of the student's probability of the realised token."""

    @property
    def terms(self) -> dict[str, torch.Tensor]:
        """The terms of each part, unscaled."""
        return {"kd": self.kd_P, "ce": self.ce_P}


class Scores(NamedTuple):
    """How the student does at each position."""

    kl_P: torch.Tensor
    """float32, nats: estimate of KL(teacher || student), see `losses.py`."""
    nll_P: torch.Tensor
    """float32, nats: -log probability of the realised token."""
    same_P: torch.Tensor
    """bool: teacher and student prefer the same token."""
    confidence_P: torch.Tensor
    """float32: the student's largest probability."""
    hit_P: torch.Tensor
    """bool: the student's preferred token is the realised one."""


def fused_loss(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    bias_V: torch.Tensor | None,
    *,
    index_P: torch.Tensor,
    targets: Targets,
    spec: LossSpec,
    scale: float,
    compute_dtype: torch.dtype = torch.float32,
    logit_map: LogitMap = PLAIN,
) -> LossOutput:
    """Return scale * sum over positions of (1 - ce) T^2 divergence + ce cross-entropy.

    `index_P` (int64, no repeats) says which of the N places each target belongs to. `logit_map` turns projections into
    logits.
    """
    loss, kd_P, ce_P = _Fused.apply(
        hidden_NH, weight_VH, bias_V, index_P, targets, spec, scale, compute_dtype, logit_map
    )
    return LossOutput(loss=loss, kd_P=kd_P, ce_P=ce_P)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx: Any,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        index_P: torch.Tensor,
        targets: Targets,
        spec: LossSpec,
        scale: float,
        compute_dtype: torch.dtype,
        logit_map: LogitMap,
    ):
        with torch.autocast(hidden_NH.device.type, enabled=False):
            needed = any(ctx.needs_input_grad[:3])
            wanted = ctx.needs_input_grad[:3]
            sums = GradAccumulator(
                hidden_NH, weight_VH, bias_V, wanted=wanted, positions=len(index_P), dtype=compute_dtype
            )
            weight_c = weight_VH.detach().to(compute_dtype)
            parts = []
            for start, stop in logit_blocks(len(index_P), len(weight_VH)):
                place_p = index_P[start:stop]
                hidden_pH = hidden_NH.detach()[place_p].to(compute_dtype)
                logits_pV = project(hidden_pH, weight_c, bias_V)
                slope_pV = logit_map.apply(logits_pV, needed=needed)
                parts.append(_judge_chunk(logits_pV, targets.slice(start, stop), spec, scale, needed=needed))
                if needed:  # logits_pV now holds the gradient; its float32 goes before the products need room
                    if slope_pV is not None:
                        logits_pV.mul_(slope_pV)
                    logits_pV = sums.cast(logits_pV)
                    sums.add(place_p, hidden_pH, logits_pV, weight_c)
                del logits_pV, slope_pV
            kd_P = torch.cat([kd for kd, _ in parts]) if parts else hidden_NH.new_zeros(0).float()
            ce_P = torch.cat([ce for _, ce in parts]) if parts else hidden_NH.new_zeros(0).float()
        ctx.grads = sums.grads
        ctx.mark_non_differentiable(kd_P, ce_P)
        kd_share = 0.0 if spec.divergence is None else 1.0 - spec.ce_weight
        ce_share = 1.0 - kd_share
        loss = ce_share * ce_P.sum() + (kd_share * kd_P.sum() if kd_share else 0.0)
        return loss * scale, kd_P, ce_P

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _kd: Any, _ce: Any) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        grads, ctx.grads = ctx.grads, (None, None, None)
        if float(grad) != 1.0:
            grads = tuple(None if g is None else g.mul_(grad) for g in grads)
        return (*grads, None, None, None, None, None, None)


class GradAccumulator:
    """Gradients of hidden states, projection and bias, summed chunk by chunk; None for those not wanted."""

    def __init__(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        wanted: tuple[bool, ...],
        positions: int,
        dtype: torch.dtype,
    ) -> None:
        self.hidden = torch.zeros_like(hidden) if wanted[0] else None
        overwritten = dtype == torch.float32 and positions > 0
        empty = torch.empty_like if overwritten else torch.zeros_like
        self.weight = empty(weight, dtype=torch.float32) if wanted[1] else None
        self.bias = torch.zeros_like(bias, dtype=torch.float32) if wanted[2] and bias is not None else None
        self._weight_dtype, self._dtype = weight.dtype, dtype
        self._first = True

    def cast(self, grad_pV: torch.Tensor) -> torch.Tensor:
        """Return a chunk's gradient by its logits as `add` takes it; the bias' share is added here, from float32."""
        if self.bias is not None:
            self.bias += grad_pV.sum(0)
        return grad_pV.to(self._dtype)

    def add(
        self, place_p: torch.Tensor, hidden_pH: torch.Tensor, grad_pV: torch.Tensor, weight_VH: torch.Tensor
    ) -> None:
        """Add a chunk's share of the other gradients."""
        if self.hidden is not None:
            # A place may come twice, in two chunks: its gradients add up.
            self.hidden[place_p] += (grad_pV @ weight_VH).to(self.hidden.dtype)
        if self.weight is not None and hidden_pH.dtype == torch.float32:
            # The first chunk writes, later ones add: beta 0 reads nothing, so nothing was to be zeroed.
            self.weight.addmm_(grad_pV.t(), hidden_pH, beta=0.0 if self._first else 1.0)
        elif self.weight is not None:
            # bf16 products summed in float32, block by block: a whole product is as large as the head
            for start in range(0, len(self.weight), _VOCAB_BLOCK):
                block = slice(start, start + _VOCAB_BLOCK)
                self.weight[block] += grad_pV[:, block].t() @ hidden_pH
        self._first = False

    @property
    def grads(self) -> tuple[torch.Tensor | None, ...]:
        weight = None if self.weight is None else self.weight.to(self._weight_dtype)
        bias = None if self.bias is None else self.bias.to(self._weight_dtype)
        return self.hidden, weight, bias


def logit_blocks(positions: int, vocab: int) -> list[tuple[int, int]]:
    """Return the bounds of chunks of about BLOCK_ELEMENTS logits."""
    size = max(16, BLOCK_ELEMENTS // vocab)
    return [(start, min(start + size, positions)) for start in range(0, positions, size)]


def project(hidden_pH: torch.Tensor, weight_VH: torch.Tensor, bias_V: torch.Tensor | None) -> torch.Tensor:
    """Return float32 logits [p, V] that may be written to."""
    logits_pV = (hidden_pH @ weight_VH.t()).float()
    return logits_pV if bias_V is None else logits_pV.add_(bias_V.detach().float())


def _judge_chunk(
    logits_pV: torch.Tensor, targets: Targets, spec: LossSpec, scale: float, *, needed: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return divergence and cross-entropy [p] each, and turn the logits into the loss' gradient by them."""
    if spec.divergence is None:
        view = sparse_log_softmax(logits_pV, targets)
        if needed:
            grad_pK = torch.zeros_like(view.logp_pK)
            grad_pK[:, 0] = -scale
            scatter_grad(view, targets, grad_pK, torch.zeros_like(view.log_tail_p))
        return torch.zeros_like(view.log_tail_p), -view.logp_pK[:, 0]

    square = spec.temperature**2
    hot = spec.temperature != 1.0
    soft_pV = logits_pV / spec.temperature if hot else logits_pV
    view = sparse_log_softmax(soft_pV, targets)
    judged = divergence_grad(
        spec.divergence,
        logp_PK=view.logp_pK,
        log_tail_P=view.log_tail_p,
        targets=targets,
        skew=spec.skew,
    )
    cold = sparse_log_softmax(logits_pV, targets) if hot else view
    ce_p = -cold.logp_pK[:, 0]
    if needed:
        share = (1.0 - spec.ce_weight) * square * scale
        grad_pK, grad_tail_p = judged.grad_PK * share, judged.grad_tail_P * share
        if hot:
            scatter_grad(view, targets, grad_pK / spec.temperature, grad_tail_p / spec.temperature)
            ce_pK = torch.zeros_like(grad_pK)
            ce_pK[:, 0] = -spec.ce_weight * scale
            scatter_grad(cold, targets, ce_pK, torch.zeros_like(grad_tail_p))
            logits_pV.add_(soft_pV)
        else:
            grad_pK[:, 0] -= spec.ce_weight * scale
            scatter_grad(view, targets, grad_pK, grad_tail_p)
    return judged.value_P * square, ce_p


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseLogSoftmax:
    """What is left of a chunk's logits: entries' log-probabilities, the tail's, and exponentials in the tail."""

    exp_pV: torch.Tensor
    """The logits' own memory: exp(x - max) outside the head, 0 in the head."""
    sum_p: torch.Tensor
    """Sum of `exp_pV`."""
    logp_pK: torch.Tensor
    """log S of the entries; padding repeats column 0."""
    log_tail_p: torch.Tensor
    """log of the student's mass outside the head; -inf if nothing is outside."""
    log_sum_p: torch.Tensor
    """log of the sum of all exponentials."""


def sparse_log_softmax(logits_pV: torch.Tensor, targets: Targets) -> SparseLogSoftmax:
    """Return the student as the loss sees it. The logits are overwritten."""
    ids_pK, head_pK = targets.ids_PK, targets.head_PK
    found_pK = logits_pV.gather(1, ids_pK)
    minus_inf = torch.full_like(found_pK, -torch.inf)
    logits_pV.scatter_(1, ids_pK, torch.where(head_pK, minus_inf, found_pK))
    top_p1 = logits_pV.amax(1, keepdim=True)
    top_p1 = torch.where(top_p1 == -torch.inf, torch.zeros_like(top_p1), top_p1)
    exp_pV = logits_pV.sub_(top_p1).exp_()
    sum_p = exp_pV.sum(1)
    tail_p = sum_p.log() + top_p1[:, 0]
    head_p = torch.where(head_pK & targets.valid_PK, found_pK, minus_inf).logsumexp(1)
    all_p = torch.logaddexp(head_p, tail_p)
    return SparseLogSoftmax(
        exp_pV=exp_pV, sum_p=sum_p, logp_pK=found_pK - all_p[:, None], log_tail_p=tail_p - all_p, log_sum_p=all_p
    )


def scatter_grad(view: SparseLogSoftmax, targets: Targets, grad_pK: torch.Tensor, grad_tail_p: torch.Tensor) -> None:
    """Turn `view.exp_pV` into the loss' gradient by the logits, given those by the entries and the tail."""
    total_p = torch.where(targets.valid_PK, grad_pK, torch.zeros_like(grad_pK)).sum(1) + grad_tail_p
    outside_p = grad_tail_p - total_p * view.log_tail_p.exp()
    view.exp_pV.mul_(torch.where(view.sum_p > 0, outside_p / view.sum_p, outside_p * 0.0)[:, None])
    # Padding repeats column 0: give it column 0's gradient, so that both write the same value.
    grad_pK = torch.where(targets.valid_PK, grad_pK, grad_pK[:, :1])
    inside_pK = -total_p[:, None] * view.logp_pK.exp()
    base_pK = torch.where(targets.head_PK, inside_pK, view.exp_pV.gather(1, targets.ids_PK))
    view.exp_pV.scatter_(1, targets.ids_PK, base_pK + grad_pK)


@torch.no_grad()
def fused_scores(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    bias_V: torch.Tensor | None,
    *,
    index_P: torch.Tensor,
    targets: Targets,
    compute_dtype: torch.dtype = torch.float32,
    logit_map: LogitMap = PLAIN,
) -> Scores:
    """Return what evaluation needs of each position."""
    found: list[Scores] = []
    with torch.autocast(hidden_NH.device.type, enabled=False):
        weight_c = weight_VH.to(compute_dtype)
        for start, stop in logit_blocks(len(index_P), len(weight_VH)):
            part = targets.slice(start, stop)
            logits_pV = project(hidden_NH[index_P[start:stop]].to(compute_dtype), weight_c, bias_V)
            logit_map.apply(logits_pV)
            best_p, top_p = logits_pV.max(1)
            view = sparse_log_softmax(logits_pV, part)
            judged = divergence_grad("forward-kl", logp_PK=view.logp_pK, log_tail_P=view.log_tail_p, targets=part)
            found.append(
                Scores(
                    kl_P=judged.value_P,
                    nll_P=-view.logp_pK[:, 0],
                    same_P=top_p == part.top_P,
                    confidence_P=(best_p - view.log_sum_p).exp(),
                    hit_P=top_p == part.ids_PK[:, 0],
                )
            )
    if not found:
        none = hidden_NH.new_zeros(0).float()
        return Scores(none, none, none.bool(), none, none.bool())
    return Scores(*(torch.cat(parts) for parts in zip(*found, strict=True)))
