"""How much does each part of a loss weigh? Fixed shares, or so that all parts pull alike.

`fixed`: cross-entropy has its share, the other parts the rest in equal shares.

`norms`: a part weighs in inverse proportion to the norm of its own gradient by the output projection, and weights sum
to one (GradMag of Minixhofer et al. 2025, arXiv 2503.20083, section 3.3). Norms are measured on the first batch of
every tenth step and smoothed; they are part of a checkpoint, so that a continued run weighs alike. Until the first
measurement shares are the fixed ones.
"""

from __future__ import annotations

import math

MEASURE_EVERY = 10
"""Steps between measurements."""
_KEPT = 0.9  # of the old norm at each measurement


def part_weights(
    parts: tuple[str, ...], *, balance: str, ce_weight: float, norms: dict[str, float]
) -> dict[str, float]:
    """Return the weight of each of `parts`; they sum to one. `norms` are smoothed ones, {} before any measurement."""
    if balance == "norms" and all(norms.get(part, 0.0) > 0.0 for part in parts):
        inverse = {part: 1.0 / norms[part] for part in parts}
        whole = sum(inverse.values())
        return {part: value / whole for part, value in inverse.items()}
    others = len(parts) - ("ce" in parts)
    ce = (ce_weight if others else 1.0) if "ce" in parts else 0.0
    return {part: ce if part == "ce" else (1.0 - ce) / others for part in parts}


def smooth_norms(norms: dict[str, float], found: dict[str, float]) -> dict[str, float]:
    """Return `norms` after the measurement `found`; a part without terms or with a broken norm keeps its old one."""
    usable = {part: value for part, value in found.items() if value > 0.0 and math.isfinite(value)}
    return norms | {part: _KEPT * norms.get(part, value) + (1.0 - _KEPT) * value for part, value in usable.items()}
