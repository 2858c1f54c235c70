"""Top-p (nucleus) masking and sampling without sorting the vocabulary, which on a CPU costs more than the model.

Nearly always a few hundred tokens hold the probability mass p, so only the largest are examined first. Only flatter
rows are sorted completely.

Shape suffixes: B rows, R flat rows, V vocabulary, K tokens examined.
"""

from __future__ import annotations

import torch

_FIRST = 256
"""Tokens that are examined before a row is sorted completely."""


def mask_outside_top_p(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Set to -inf all but the fewest tokens that together have probability `top_p`, per row.

    Top-p sampling of Holtzman et al. (arXiv 1904.09751), section 3.1. Tokens that are exactly as probable as the last
    kept one are kept, too.

    Args:
        logits: Logits after temperature: (batch, vocab), float32; not modified.
        top_p: Probability mass to keep, in (0, 1]; 1 keeps all tokens.

    Returns:
        The masked logits: (batch, vocab), float32.
    """
    if top_p >= 1:
        return logits
    probs_BV = logits.softmax(-1)
    largest_BK = probs_BV.topk(min(_FIRST, probs_BV.shape[-1]), -1).values
    least_B1 = _least_kept(largest_BK, top_p)
    short_B = largest_BK.cumsum(-1)[:, -1] < top_p
    if bool(short_B.any()):
        least_B1[short_B] = _least_kept(probs_BV[short_B].sort(-1, descending=True).values, top_p)
    return logits.masked_fill(probs_BV < least_B1, float("-inf"))


def sample_top_p(probs_BV: torch.Tensor, top_p: float, draws_B1: torch.Tensor) -> torch.Tensor:
    """Return one id of each row, in proportion to the probabilities of those that `mask_outside_top_p` keeps: (B,).

    Inverse transform sampling in the order of the ids: equal on every device, apart from rounding.

    Args:
        probs_BV: float32.
        top_p: Probability mass to keep, in (0, 1]; 1 keeps all tokens.
        draws_B1: A number in [0, 1) for each row, float64.
    """
    if top_p >= 1:
        return _invert(probs_BV, draws_B1)
    largest_BK, ids_BK = probs_BV.topk(min(_FIRST, probs_BV.shape[-1]), -1)
    least_B1 = _least_kept(largest_BK, top_p)
    # Tokens that are as probable as the last one examined may be missing, and so may mass.
    flat_B = (least_B1 <= largest_BK[:, -1:])[:, 0]
    ids_BK, order_BK = ids_BK.sort(-1)
    probs_BK = largest_BK.gather(-1, order_BK)
    sampled_B = ids_BK.gather(-1, _invert(probs_BK.where(probs_BK >= least_B1, 0), draws_B1)[:, None])[:, 0]
    if bool(flat_B.any()):
        flat_RV = probs_BV[flat_B]
        least_R1 = _least_kept(flat_RV.sort(-1, descending=True).values, top_p)
        sampled_B[flat_B] = _invert(flat_RV.where(flat_RV >= least_R1, 0), draws_B1[flat_B])
    return sampled_B


def _invert(probs_BK: torch.Tensor, draws_B1: torch.Tensor) -> torch.Tensor:
    cumulative_BK = probs_BK.double().cumsum(-1)
    places_B = torch.searchsorted(cumulative_BK, draws_B1 * cumulative_BK[:, -1:], right=True)[:, 0]
    return places_B.clamp(max=probs_BK.shape[-1] - 1)  # a product that rounds up to the whole mass


def _least_kept(largest_BK: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return the last probability that reaches the mass: (B, 1); by rounding or for want of tokens, the last given."""
    last_B1 = (largest_BK.cumsum(-1) < top_p).sum(-1, keepdim=True).clamp(max=largest_BK.shape[-1] - 1)
    return largest_BK.gather(-1, last_B1)
