"""Sampling of one token per row, each with its own random number.

Shape suffixes: B rows, V vocabulary.
"""

from __future__ import annotations

import torch

_FIRST = 256
"""Ids that are examined before a row is sorted completely: nearly always they hold the mass."""


def choose_ids(
    logits_BV: torch.Tensor, *, temperature: float, top_p: float, draws: list[float]
) -> tuple[list[int], list[float]]:
    """Return the next id of each row, and its log-probability at temperature 1.

    Inverse transform sampling: one uniform number per row, whose use is the same on every device.

    Args:
        logits_BV: float32.
        temperature: 0 takes the largest logit.
        top_p: Mass of the smallest set of ids that is sampled from (Holtzman et al., arXiv 1904.09751).
        draws: A number in [0, 1) for each row.
    """
    if temperature == 0:
        ids_B = logits_BV.argmax(-1)
    else:
        draws_B1 = torch.tensor(draws, dtype=torch.float64, device=logits_BV.device)[:, None]
        ids_B = _sample((logits_BV / temperature).softmax(-1), top_p, draws_B1)
    chosen_B = logits_BV.gather(-1, ids_B[:, None])[:, 0] - logits_BV.logsumexp(-1)
    both = torch.stack([ids_B.double(), chosen_B.double()]).tolist()  # one transfer from the device
    return [int(value) for value in both[0]], both[1]


def _sample(probs_BV: torch.Tensor, top_p: float, draws_B1: torch.Tensor) -> torch.Tensor:
    """Return one id of each row from the smallest set of mass `top_p`; ties with its last id belong to it."""
    if top_p >= 1:
        return _invert(probs_BV, draws_B1)
    largest_BK, ids_BK = probs_BV.topk(min(_FIRST, probs_BV.shape[-1]), -1)
    least_B1 = _least_kept(largest_BK, top_p)
    # Ids that are as probable as the last one examined may be missing, and so may mass.
    flat_B = (least_B1 <= largest_BK[:, -1:])[:, 0]
    ids_BK, order_BK = ids_BK.sort(-1)
    probs_BK = largest_BK.gather(-1, order_BK)
    chosen_B = ids_BK.gather(-1, _invert(probs_BK.where(probs_BK >= least_B1, 0), draws_B1)[:, None])[:, 0]
    if bool(flat_B.any()):
        flat_RV = probs_BV[flat_B]
        least_R1 = _least_kept(flat_RV.sort(-1, descending=True).values, top_p)
        chosen_B[flat_B] = _invert(flat_RV.where(flat_RV >= least_R1, 0), draws_B1[flat_B])
    return chosen_B


def _invert(probs_BK: torch.Tensor, draws_B1: torch.Tensor) -> torch.Tensor:
    """Return the place that each draw falls on, with probability in proportion to the row's values."""
    cumulative_BK = probs_BK.double().cumsum(-1)
    places_B = torch.searchsorted(cumulative_BK, draws_B1 * cumulative_BK[:, -1:], right=True)[:, 0]
    return places_B.clamp(max=probs_BK.shape[-1] - 1)  # a product that rounds up to the whole mass


def _least_kept(largest_BK: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return the least probability that is kept: (B, 1); the last one where the given ones have less than `top_p`."""
    last_B1 = (largest_BK.cumsum(-1) < top_p).sum(-1, keepdim=True).clamp(max=largest_BK.shape[-1] - 1)
    return largest_BK.gather(-1, last_B1)
