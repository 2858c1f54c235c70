"""Log-softmax at a few ids of each position, and its gradient scattered back to all logits.

With x the logits, S the student's probabilities, g the derivatives of the loss by log S of the entries, G their sum,
and u the derivative by the log of the student's mass T outside the head:

    d loss / d x_v = g_v - (G + u) S_v + [v outside the head] u S_v / T

The tail is summed by itself. So T keeps its digits where the head holds nearly all mass, and S_v / T never overflows.

Shapes: p positions of a block, K entries of a position, V vocabulary size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from student_train.losses.targets import Targets


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseLogSoftmax:
    """Log-probabilities of the entries and of the tail of a block's positions; all float32."""

    exp_pV: torch.Tensor
    """The memory of the logits: exp(x - max) outside the head, 0 in the head."""
    sum_p: torch.Tensor
    """Sum of `exp_pV`."""
    logp_pK: torch.Tensor
    """log S of the entries; padding repeats column 0."""
    log_tail_p: torch.Tensor
    """log T; -inf where no id is outside the head."""
    log_sum_p: torch.Tensor
    """log of the sum of all exponentials of logits."""


def sparse_log_softmax(logits_pV: torch.Tensor, targets: Targets) -> SparseLogSoftmax:
    """Return the log-softmax at the entries of `targets`. Overwrites the logits."""
    ids_pK, head_pK = targets.ids_PK, targets.head_PK
    entry_pK = logits_pV.gather(1, ids_pK)
    minus_inf_pK = torch.full_like(entry_pK, -torch.inf)
    logits_pV.scatter_(1, ids_pK, torch.where(head_pK, minus_inf_pK, entry_pK))
    max_p1 = logits_pV.amax(1, keepdim=True)
    max_p1 = torch.where(max_p1 == -torch.inf, torch.zeros_like(max_p1), max_p1)
    exp_pV = logits_pV.sub_(max_p1).exp_()
    sum_p = exp_pV.sum(1)
    tail_p = sum_p.log() + max_p1[:, 0]
    head_p = torch.where(head_pK & targets.valid_PK, entry_pK, minus_inf_pK).logsumexp(1)
    log_sum_p = torch.logaddexp(head_p, tail_p)
    return SparseLogSoftmax(
        exp_pV=exp_pV,
        sum_p=sum_p,
        logp_pK=entry_pK - log_sum_p[:, None],
        log_tail_p=tail_p - log_sum_p,
        log_sum_p=log_sum_p,
    )


def scatter_grad(softmax: SparseLogSoftmax, targets: Targets, grad_pK: torch.Tensor, grad_tail_p: torch.Tensor) -> None:
    """Turn `softmax.exp_pV`, in place, into the gradient of the loss by the logits.

    Args:
        softmax: The log-softmax of the block; may be used once.
        targets: The targets that it was computed for.
        grad_pK: Derivatives of the loss by `softmax.logp_pK`.
        grad_tail_p: Derivatives of the loss by `softmax.log_tail_p`.
    """
    total_p = torch.where(targets.valid_PK, grad_pK, torch.zeros_like(grad_pK)).sum(1) + grad_tail_p
    outside_p = grad_tail_p - total_p * softmax.log_tail_p.exp()
    softmax.exp_pV.mul_(torch.where(softmax.sum_p > 0, outside_p / softmax.sum_p, outside_p * 0.0)[:, None])
    # Padding repeats column 0 and gets its gradient, so that both write the same value.
    grad_pK = torch.where(targets.valid_PK, grad_pK, grad_pK[:, :1])
    inside_pK = -total_p[:, None] * softmax.logp_pK.exp()
    base_pK = torch.where(targets.head_PK, inside_pK, softmax.exp_pV.gather(1, targets.ids_PK))
    softmax.exp_pV.scatter_(1, targets.ids_PK, base_pK + grad_pK)
