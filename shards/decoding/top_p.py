"""Top-p (nucleus) sampling that rarely reads more than the most probable ids; a sort of all costs more than a model.

Shape suffixes: B rows, R flat rows, V vocabulary, K ids examined.
"""

from __future__ import annotations

import torch

FIRST = 256
"""Ids that are examined before a row is sorted completely: nearly always they hold the mass."""


def sample_top_p(probs_BV: torch.Tensor, top_p: float, draws_B1: torch.Tensor) -> torch.Tensor:
    """Return one id of each row from the smallest set of mass `top_p`, in proportion to the probabilities: (B,), int64.

    Top-p sampling of Holtzman et al. (arXiv 1904.09751), section 3.1. Ids exactly as probable as the last one of the
    set belong to it. Inverse transform sampling in the order of the ids: equal on every device, apart from rounding.

    Args:
        probs_BV: Probabilities, float32.
        top_p: Mass to keep, in (0, 1]; 1 keeps all ids.
        draws_B1: A number in [0, 1) for each row, float64.
    """
    if top_p >= 1:
        return _invert(probs_BV, draws_B1)
    largest_BK, ids_BK = probs_BV.topk(min(FIRST, probs_BV.shape[-1]), -1)
    least_B1 = least_kept(largest_BK, top_p)
    # Ids that are as probable as the last one examined may be missing, and so may mass.
    flat_B = (least_B1 <= largest_BK[:, -1:])[:, 0]
    ids_BK, order_BK = ids_BK.sort(-1)
    probs_BK = largest_BK.gather(-1, order_BK)
    sampled_B = ids_BK.gather(-1, _invert(probs_BK.where(probs_BK >= least_B1, 0), draws_B1)[:, None])[:, 0]
    if bool(flat_B.any()):
        flat_RV = probs_BV[flat_B]
        least_R1 = least_kept(flat_RV.sort(-1, descending=True).values, top_p)
        sampled_B[flat_B] = _invert(flat_RV.where(flat_RV >= least_R1, 0), draws_B1[flat_B])
    return sampled_B


def least_kept(largest_BK: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return the last probability that reaches the mass: (B, 1); by rounding or for want of ids, the last given.

    Args:
        largest_BK: The largest probabilities of each row, in decreasing order.
        top_p: The mass.
    """
    last_B1 = (largest_BK.cumsum(-1) < top_p).sum(-1, keepdim=True).clamp(max=largest_BK.shape[-1] - 1)
    return largest_BK.gather(-1, last_B1)


def _invert(probs_BK: torch.Tensor, draws_B1: torch.Tensor) -> torch.Tensor:
    """Return the place that each draw falls on, with probability in proportion to the row's values."""
    cumulative_BK = probs_BK.double().cumsum(-1)
    places_B = (cumulative_BK <= draws_B1 * cumulative_BK[:, -1:]).sum(-1)
    return places_B.clamp(max=probs_BK.shape[-1] - 1)  # a product that rounds up to the whole mass
