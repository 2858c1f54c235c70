"""Top-p (nucleus) masking without sorting the vocabulary, which on a CPU costs more than the model.

Shape suffixes: B rows, V vocabulary, K tokens examined.
"""

from __future__ import annotations

import torch

from shards.decoding.top_p import FIRST, least_kept


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
    largest_BK = probs_BV.topk(min(FIRST, probs_BV.shape[-1]), -1).values
    least_B1 = least_kept(largest_BK, top_p)
    short_B = largest_BK.cumsum(-1)[:, -1] < top_p
    if bool(short_B.any()):
        least_B1[short_B] = least_kept(probs_BV[short_B].sort(-1, descending=True).values, top_p)
    return logits.masked_fill(probs_BV < least_B1, float("-inf"))
