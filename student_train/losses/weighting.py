"""Weights of the parts of a loss: fixed shares, or inverse gradient norms.

`fixed`: cross-entropy has its own share; the other parts divide the rest equally.

`norms`: the weight of a part is inversely proportional to the norm of its gradient by the output projection, and the
weights sum to one (GradMag of Minixhofer et al. 2025, arXiv 2503.20083, section 3.3). Norms are measured on the first
batch of every tenth step and smoothed. They are saved in checkpoints, so a resumed run has the same weights. Shares are
fixed until the first measurement.
"""

from __future__ import annotations

import math

MEASURE_EVERY = 10
"""Steps between measurements."""
_DECAY = 0.9
"""Share of the old norm at each measurement."""


def part_weights(
    parts: tuple[str, ...], *, balance: str, ce_weight: float, norms: dict[str, float]
) -> dict[str, float]:
    """Return the weight of each part; weights sum to one.

    Args:
        parts: Names of the parts of the loss.
        balance: `norms` or `fixed`.
        ce_weight: Share of cross-entropy where shares are fixed.
        norms: Smoothed norm of each part's gradient; {} before the first measurement.
    """
    if balance == "norms" and all(norms.get(part, 0.0) > 0.0 for part in parts):
        inverse = {part: 1.0 / norms[part] for part in parts}
        total = sum(inverse.values())
        return {part: value / total for part, value in inverse.items()}
    num_others = len(parts) - ("ce" in parts)
    ce = (ce_weight if num_others else 1.0) if "ce" in parts else 0.0
    return {part: ce if part == "ce" else (1.0 - ce) / num_others for part in parts}


def smooth_norms(norms: dict[str, float], measured: dict[str, float]) -> dict[str, float]:
    """Return smoothed norms after a measurement; a part with a norm of zero, or not finite, keeps its old one."""
    usable = {part: norm for part, norm in measured.items() if norm > 0.0 and math.isfinite(norm)}
    return norms | {part: _DECAY * norms.get(part, norm) + (1.0 - _DECAY) * norm for part, norm in usable.items()}
