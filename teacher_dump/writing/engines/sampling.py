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
        probs_BV = _nucleus(logits_BV / temperature, top_p).double()
        cumulative_BV = probs_BV.cumsum(-1)
        draws_B1 = torch.tensor(draws, dtype=torch.float64, device=logits_BV.device)[:, None]
        ids_B = torch.searchsorted(cumulative_BV, draws_B1 * cumulative_BV[:, -1:], right=True)[:, 0]
        ids_B = ids_B.clamp(max=logits_BV.shape[-1] - 1)  # a product that rounds up to the whole mass
    chosen_B = logits_BV.gather(-1, ids_B[:, None])[:, 0] - logits_BV.logsumexp(-1)
    both = torch.stack([ids_B.double(), chosen_B.double()]).tolist()  # one transfer from the device
    return [int(value) for value in both[0]], both[1]


def _nucleus(logits_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return the probabilities, 0 outside the smallest set of mass `top_p`; ties with its last id stay."""
    probs_BV = logits_BV.softmax(-1)
    if top_p >= 1:
        return probs_BV
    least_B1 = _least_kept(probs_BV.topk(min(_FIRST, probs_BV.shape[-1]), -1).values, top_p)
    flat_B = least_B1[:, 0] < 0
    if bool(flat_B.any()):
        least_B1[flat_B] = _least_kept(probs_BV[flat_B].sort(-1, descending=True).values, top_p).abs()
    return probs_BV.where(probs_BV >= least_B1, 0)


def _least_kept(largest_BK: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return the least probability that is kept: (B, 1); negative where the given ones have less mass than `top_p`."""
    mass_BK = largest_BK.cumsum(-1)
    last_B1 = (mass_BK < top_p).sum(-1, keepdim=True).clamp(max=largest_BK.shape[-1] - 1)
    least_B1 = largest_BK.gather(-1, last_B1)
    return least_B1.where(mass_BK[:, -1:] >= top_p, -least_B1)
