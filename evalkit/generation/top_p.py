"""Which tokens does top-p keep? Without sorting the vocabulary, which on a CPU costs more than the model.

Nearly always a few hundred tokens hold the share p, so the largest are looked at first; only rows that are
flatter than that are sorted whole.
"""

from __future__ import annotations

import torch

_FIRST = 256
"""Tokens looked at before a row is sorted whole."""


def keep_nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Set to -inf all but the fewest tokens that together have probability `top_p`, per row.

    Top-p sampling of Holtzman et al. (arXiv 1904.09751), section 3.1. Tokens as likely as the last one that is
    kept are kept, too.

    Args:
        logits: Rows of logits, temperature applied: (batch, vocab), float32; not changed.
        top_p: Share of the probability to keep, in (0, 1]; 1 keeps everything.

    Returns:
        The masked logits: (batch, vocab), float32.
    """
    if top_p >= 1:
        return logits
    probs = logits.softmax(-1)
    least = torch.empty_like(probs[:, 0])
    rest = torch.arange(len(probs), device=probs.device)
    for count in (min(_FIRST, probs.shape[-1]), probs.shape[-1]):
        largest = (probs if len(rest) == len(probs) else probs[rest]).topk(count, -1).values
        mass = largest.cumsum(-1)
        # The last token that is kept is the first at which the share is reached; rounding may leave it unreached.
        last = (mass < top_p).sum(-1, keepdim=True).clamp(max=count - 1)
        least[rest] = largest.gather(-1, last).squeeze(-1)
        rest = rest[mass[:, -1] < top_p]
        if not len(rest):
            break
    return logits.masked_fill(probs < least.unsqueeze(-1), float("-inf"))
