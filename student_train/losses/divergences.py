"""Divergences of the student from the teacher at one position, with closed-form derivatives.

A position has K entries (see `targets.py`). Two tensors describe the student: `logp_PK`, its log-probabilities of the
entries, and `log_tail_P`, the log of its mass outside the head. Each divergence returns its value and its derivatives
by these two, so no autograd graph is needed. `fused_linear.py` passes the derivatives on to the logits.

Let t be the teacher, s the student and tau the teacher's mass outside the stored head:

forward-kl         sum over head and draws of w (-log s) - H(t), w the stored weights. The draws make it an unbiased
                   estimate of KL(t || s). Positions with a tail too small for draws use the bucket.
bucket-forward-kl  KL(t || s) on the partition {each head id, all other ids}. A lower bound of KL(t || s), too small by
                   tau times the KL of the two tails.
bucket-reverse-kl  KL(s || t) on that partition (Gu et al. 2023, MiniLLM, without the on-policy part).
bucket-skew-kl     KL(t || a t + (1 - a) s) on that partition (Ko et al. 2024, DistiLLM).
bucket-js          (KL(t || m) + KL(s || m)) / 2 with m = (t + s) / 2 on that partition (Agarwal et al. 2023, GKD).
rs-kd              forward-kl with weights drawn anew: the counts of N ids drawn from head and draws
                   (`random_sampling.py`). Unbiased, noisier. For comparison only.
top-k              KL to the renormalised head. Biased: its optimum is t / mass(head). For comparison only.

One class for all other ids is the dustbin of Hinton et al. 2015, section 5, and the ghost token of Anshumann et al.
2025.

To add a divergence that is a sum over classes of a partition:

1. Here, write a function of one class, as `_forward_kl`: it takes the teacher's mass, the log of the student's mass and
   `skew`, and returns the value and its derivative by the log of the student's mass. Add an entry to `DIVERGENCES`; its
   name begins with `bucket-`.
2. Add the name to `DIVERGENCES` in `student_train/choices.py`.
3. Describe it in `docs/training.md`, and add its dense definition to `dense_divergence` in
   `tests/student_train/losses/test_fused_linear.py`, which then checks value and gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from student_train.losses.targets import Targets

SMALLEST_TEACHER = 2.0**-24
"""Smallest teacher's mass in the reverse KL, half a float32 ulp of one: a smaller tail reads as zero."""
_LOWEST_LOG = -1e4
"""Smallest log of the student's tail; a student without ids outside the head has none."""


class DivergenceGrad(NamedTuple):
    """Value of a divergence and its derivatives."""

    value_P: torch.Tensor
    """float32, nats; not multiplied by T^2."""
    grad_PK: torch.Tensor
    """Derivative by `logp_PK`; 0 for padding."""
    grad_tail_P: torch.Tensor
    """Derivative by `log_tail_P`."""


ClassDivergence = Callable[[torch.Tensor, torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]]
"""(teacher's mass, log of the student's mass, skew) -> (value, derivative by the second) of one class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence:
    """How a divergence is computed."""

    target_kind: str
    """The kind of targets that it needs, as in `TargetSpec`."""
    of_class: ClassDivergence | None = None
    """Contribution of one class of the partition; None for a cross-entropy with the targets' weights."""


def target_kind(objective: str, divergence: str, *, specialist: bool = False) -> str:
    """Return the kind of targets that a loss needs, as in `TargetSpec`."""
    if objective == "sft":
        return "none"
    return "specialist" if specialist else DIVERGENCES[divergence].target_kind


def divergence_grad(
    name: str, *, logp_PK: torch.Tensor, log_tail_P: torch.Tensor, targets: Targets, skew: float = 0.1
) -> DivergenceGrad:
    """Compute a divergence of the student from the teacher at each position, with derivatives.

    Args:
        name: One of `DIVERGENCES`.
        logp_PK: float32 log-probabilities of the entries.
        log_tail_P: float32 log of the student's mass outside the head.
        targets: Targets of the kind that the divergence needs.
        skew: Share of the teacher in the mixture of `bucket-skew-kl`.
    """
    log_tail_P = log_tail_P.clamp_min(_LOWEST_LOG)
    of_class = DIVERGENCES[name].of_class
    if of_class is None:
        return _weighted_cross_entropy(logp_PK, log_tail_P, targets)
    # Entries outside the partition get a harmless value: a difference of -inf would be NaN.
    is_class_PK = targets.head_PK & targets.valid_PK
    value_PK, grad_PK = of_class(targets.teacher_PK, torch.where(is_class_PK, logp_PK, 0.0), skew)
    tail_value_P, grad_tail_P = of_class(targets.tail_P, log_tail_P, skew)
    zero = torch.zeros((), dtype=logp_PK.dtype, device=logp_PK.device)
    value_P = torch.where(is_class_PK, value_PK, zero).sum(1) + tail_value_P
    return DivergenceGrad(value_P, torch.where(is_class_PK, grad_PK, zero), grad_tail_P)


def _weighted_cross_entropy(logp_PK: torch.Tensor, log_tail_P: torch.Tensor, targets: Targets) -> DivergenceGrad:
    weight_PK, bucket_P = targets.weight_PK, targets.bucket_P
    value_P = -_times(weight_PK, logp_PK).sum(1) - _times(bucket_P, log_tail_P) - targets.constant_P
    return DivergenceGrad(value_P, -weight_PK, -bucket_P)


def _forward_kl(t: torch.Tensor, log_s: torch.Tensor, skew: float) -> tuple[torch.Tensor, torch.Tensor]:
    return _times(t, t.log() - log_s), -t


def _reverse_kl(t: torch.Tensor, log_s: torch.Tensor, skew: float) -> tuple[torch.Tensor, torch.Tensor]:
    s = log_s.exp()
    ratio = log_s - t.clamp_min(SMALLEST_TEACHER).log()
    return _times(s, ratio), _times(s, ratio + 1.0)


def _skew_kl(t: torch.Tensor, log_s: torch.Tensor, skew: float) -> tuple[torch.Tensor, torch.Tensor]:
    log_share = math.log(skew) if skew > 0.0 else -math.inf
    log_rest = math.log1p(-skew) + log_s if skew < 1.0 else torch.full_like(log_s, -math.inf)
    log_m = torch.logaddexp(t.log() + log_share, log_rest)
    return _times(t, t.log() - log_m), -_times(t, (log_rest - log_m).exp())


def _js(t: torch.Tensor, log_s: torch.Tensor, skew: float) -> tuple[torch.Tensor, torch.Tensor]:
    s = log_s.exp()
    log_m = torch.logaddexp(t.log(), log_s) - math.log(2.0)
    value = 0.5 * (_times(t, t.log() - log_m) + _times(s, log_s - log_m))
    return value, 0.5 * _times(s, log_s - log_m)


def _times(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return weight * value, and 0 where the weight is 0: 0 * log 0 is 0."""
    return torch.where(weight == 0, torch.zeros_like(weight), weight * value)


DIVERGENCES = {
    "forward-kl": Divergence(target_kind="linear"),
    "bucket-forward-kl": Divergence(target_kind="bucket", of_class=_forward_kl),
    "bucket-reverse-kl": Divergence(target_kind="bucket", of_class=_reverse_kl),
    "bucket-skew-kl": Divergence(target_kind="bucket", of_class=_skew_kl),
    "bucket-js": Divergence(target_kind="bucket", of_class=_js),
    "rs-kd": Divergence(target_kind="rs-kd"),
    "top-k": Divergence(target_kind="top-k"),
}
