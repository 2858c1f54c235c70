"""How wrong is the student at a position, given log-probabilities of a few ids?

Everything here lives in the small space of a position's entries (see `targets.py`): P positions, K columns. The
student is seen through `logp_PK`, its log-probabilities of the entries, and `log_tail_P`, the log of its mass outside
the head. `fused.py` gets them from the hidden states and carries the gradients back.

Each divergence returns its value and closed-form derivatives with respect to those two, so no graph is built. Let t be
the teacher, s the student, tau the mass outside the stored head:

forward-kl         sum over head and draws of w (-log s) - H(t); draws make it unbiased for KL(t || s). Positions whose
                   tail is too small for draws use the bucket.
bucket-forward-kl  KL(t || s) on the partition {head ids, all else}: a lower bound, short by tau KL(tail || tail).
bucket-reverse-kl  KL(s || t) on that partition (Gu et al. 2023, MiniLLM, without the on-policy part).
bucket-skew-kl     KL(t || a t + (1 - a) s) on that partition (Ko et al. 2024, DistiLLM).
bucket-js          (KL(t || m) + KL(s || m)) / 2, m = (t + s) / 2, on that partition (Agarwal et al. 2023, GKD).
rs-kd              forward-kl, with the counts of N ids drawn from head and draws in their place (`resample.py`):
                   unbiased too, noisier. For comparison only.
top-k              KL to the renormalised head: biased, its optimum is t / mass(head). For comparison only.

The partition with one class for all the rest is the dustbin of Hinton et al. 2015, section 5, and the ghost token of
Anshumann et al. 2025. With temperature T, Hinton's mix is (1 - ce) T^2 KL_T + ce CE.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from student_train.losses.targets import Targets

# A float32 tail below half an ulp of one reads as zero; the reverse KL needs a positive probability there.
SMALLEST_TEACHER = 2.0**-24

LOWEST_LOG = -1e4


class DivergenceGrad(NamedTuple):
    """Value of a divergence and its derivatives."""

    value_P: torch.Tensor
    """float32, in nats; not yet times T^2."""
    grad_PK: torch.Tensor
    """d value / d logp_PK; 0 for padding."""
    grad_tail_P: torch.Tensor
    """d value / d log_tail_P."""


def target_kind(objective: str, divergence: str, *, specialist: bool = False) -> str:
    """Return what `targets_of` must provide: `linear`, `bucket`, `rs-kd`, `top-k`, `specialist` or `none`."""
    if objective == "sft":
        return "none"
    if specialist:
        return "specialist"
    if divergence.startswith("bucket-"):
        return "bucket"
    return divergence if divergence in ("rs-kd", "top-k") else "linear"


def divergence_grad(
    divergence: str, *, logp_PK: torch.Tensor, log_tail_P: torch.Tensor, targets: Targets, skew: float = 0.1
) -> DivergenceGrad:
    """Return the divergence `divergence` of the student from the teacher at each position, with derivatives."""
    # A student whose every id is in the head has no tail at all; the teacher's tail is then mere rounding.
    log_tail_P = log_tail_P.clamp_min(LOWEST_LOG)
    if not divergence.startswith("bucket-"):
        return _linear(logp_PK, log_tail_P, targets)
    kind = divergence.removeprefix("bucket-")
    # -inf differences at cells outside the partition would be NaN; give those cells a harmless value first.
    cell_PK = targets.head_PK & targets.valid_PK
    value_PK, grad_PK = _cell(kind, targets.teacher_PK, torch.where(cell_PK, logp_PK, 0.0), skew)
    value_P, grad_P = _cell(kind, targets.tail_P, log_tail_P, skew)
    zero = torch.zeros((), dtype=logp_PK.dtype, device=logp_PK.device)
    return DivergenceGrad(
        torch.where(cell_PK, value_PK, zero).sum(1) + value_P, torch.where(cell_PK, grad_PK, zero), grad_P
    )


def _linear(logp_PK: torch.Tensor, log_tail_P: torch.Tensor, targets: Targets) -> DivergenceGrad:
    weight_PK, bucket_P = targets.weight_PK, targets.bucket_P
    value_P = -_times(weight_PK, logp_PK).sum(1) - _times(bucket_P, log_tail_P) - targets.constant_P
    return DivergenceGrad(value_P, -weight_PK, -bucket_P)


def _cell(kind: str, t: torch.Tensor, log_s: torch.Tensor, skew: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the contribution of cells with masses t and exp(log_s), and its derivative by log_s."""
    s = log_s.exp()
    if kind == "forward-kl":
        return _times(t, t.log() - log_s), -t
    if kind == "reverse-kl":
        ratio = log_s - t.clamp_min(SMALLEST_TEACHER).log()
        return _times(s, ratio), _times(s, ratio + 1.0)
    if kind == "skew-kl":
        log_rest = math.log1p(-skew) + log_s if skew < 1.0 else torch.full_like(log_s, -math.inf)
        log_m = torch.logaddexp(t.log() + _log(skew), log_rest)
        return _times(t, t.log() - log_m), -_times(t, (log_rest - log_m).exp())
    if kind == "js":
        log_m = torch.logaddexp(t.log(), log_s) - math.log(2.0)
        value = 0.5 * (_times(t, t.log() - log_m) + _times(s, log_s - log_m))
        return value, 0.5 * _times(s, log_s - log_m)
    raise AssertionError(f"no divergence is called {kind}")


def _log(x: float) -> float:
    return math.log(x) if x > 0.0 else -math.inf


def _times(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return weight * value where weight is positive or NaN, and 0 where it is 0: 0 * log 0 is 0."""
    return torch.where(weight == 0, torch.zeros_like(weight), weight * value)
