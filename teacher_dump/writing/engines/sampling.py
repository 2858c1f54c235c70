"""Sampling of one token per row, each with its own random number.

Shape suffixes: B rows, V vocabulary.
"""

from __future__ import annotations

import torch

from shards.decoding.top_p import sample_top_p


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
        ids_B = sample_top_p((logits_BV / temperature).softmax(-1), top_p, draws_B1)
    chosen_B = logits_BV.gather(-1, ids_B[:, None])[:, 0] - logits_BV.logsumexp(-1)
    both = torch.stack([ids_B.double(), chosen_B.double()]).tolist()  # one transfer from the device
    return [int(value) for value in both[0]], both[1]
