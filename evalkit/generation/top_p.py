"""Top-p (nucleus) masking without sorting the vocabulary, which on a CPU costs more than the model.

Nearly always a few hundred tokens hold the probability mass p, so only the largest are examined first. Only flatter
rows are sorted completely.
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
    probs = logits.softmax(-1)
    threshold = torch.empty_like(probs[:, 0])
    remaining = torch.arange(len(probs), device=probs.device)
    for count in (min(_FIRST, probs.shape[-1]), probs.shape[-1]):
        largest = (probs if len(remaining) == len(probs) else probs[remaining]).topk(count, -1).values
        mass = largest.cumsum(-1)
        # The last kept token is the first that reaches the mass; by rounding it may never be reached.
        last = (mass < top_p).sum(-1, keepdim=True).clamp(max=count - 1)
        threshold[remaining] = largest.gather(-1, last).squeeze(-1)
        remaining = remaining[mass[:, -1] < top_p]
        if not len(remaining):
            break
    return logits.masked_fill(probs < threshold.unsqueeze(-1), float("-inf"))
