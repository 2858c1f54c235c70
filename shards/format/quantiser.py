"""The quantiser of probabilities, and the expected number of draws.

Codes are spaced evenly in asin(sqrt(p)), the variance-stabilising transform of a proportion. There a step causes the
same KL divergence everywhere: steps are finest near 0 and, for the tail, near 1.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from shards.errors import ShardError
from shards.format.chunk import Int32
from shards.format.schema import HEAD_STEP, MAX_ENTRIES, TAIL_STEP, UNIT

Codes = npt.NDArray[np.uint8]


@functools.cache
def tail_table() -> Int32:
    """Return int32 [256]: the mass of each tail code, round(2^24 sin^2(i pi / 510)), in units of 2^-24."""
    return _table(TAIL_STEP)


@functools.cache
def head_table() -> Int32:
    """Return int32 [256]: the probability of each head code, round(2^24 sin^2(i pi / 1020)), in units of 2^-24."""
    return _table(HEAD_STEP)


def _table(step: float) -> Int32:
    table = np.array([round(UNIT * math.sin(i * step) ** 2) for i in range(256)], dtype=np.int32)
    table.setflags(write=False)
    return table


def tail_code(tail: npt.NDArray[np.float64]) -> Codes:
    """Return the nearest codes of tail masses. Masses outside [0, 1], from rounded sums, are clipped."""
    codes: Codes = np.rint(np.arcsin(np.sqrt(np.clip(tail, 0, 1))) * (1 / TAIL_STEP)).astype(np.uint8)
    return codes


@functools.cache
def expected_draws(threshold: float, tail_floor: float) -> npt.NDArray[np.uint8]:
    """Return uint8 [256]: the expected number of draws of a position with each tail code, ceil(tail / c).

    Args:
        threshold: c.
        tail_floor: Tail mass below which the number is 0.

    Raises:
        ShardError: If a number exceeds one byte.
    """
    mass = tail_table().astype(np.float64)
    draws = np.ceil(mass / (threshold * UNIT) - 1e-9)
    draws[mass < tail_floor * UNIT] = 0
    if draws.max() > MAX_ENTRIES:
        raise ShardError(f"threshold: found {threshold}, expected at least {1 / MAX_ENTRIES:.4f}")
    return draws.astype(np.uint8)
