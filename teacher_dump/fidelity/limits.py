"""How far stored values may be from the exact teacher: the allowances of `teacher-dump --check`.

Distances are in steps of the code that stores a value (`teacher_dump.fidelity.differences`). Two statistics of each
kind of value
are judged: the largest distance finds one wrong value, the mean finds what is wrong everywhere. Both may grow with the
noise of the engine's type, which the model's plain forward shows, and with the differences between two runs of the
engine. Neither may grow beyond a ceiling: a faulty engine makes any noise.

docs/decisions/0009-allowances-of-the-check.md has the measurements behind the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LIMIT_STEPS = {"draws": 0.5}
"""Steps that a value may be off without any noise, where it is not 3. A draw has no code: its step is what it stands
for, and without noise it lies where it should."""
_LIMIT_STEPS = 3.0
NOISE_TIMES = 4.0
"""How often the largest noise a value may be off besides. Noise and difference are maxima over the same positions."""
MEAN_STEPS = 0.5
"""Mean steps that values may be off without any noise. Rounding to a code costs a quarter of a step."""
MEAN_TIMES = 2.0
"""How often the mean noise a mean may be besides."""
CEILING = {
    "head ids": 100.0,
    "head probabilities": 130.0,
    "tail mass": 100.0,
    "realised token": 1000.0,
    "whitespace mass": 60.0,
    "entropy": 80.0,
    "log Z": 400.0,
    "draws": 6.0,
}
"""Most steps that any noise can excuse: about four times the largest that honest bfloat16 was seen to have."""
MEAN_CEILING = {
    "head ids": 2.5,
    "head probabilities": 9.0,
    "tail mass": 6.0,
    "realised token": 70.0,
    "whitespace mass": 3.5,
    "entropy": 4.0,
    "log Z": 16.0,
    "draws": 0.2,
}
"""Most mean steps that any noise can excuse, by the same rule."""

Found = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Statistics by side ("stored", "rounding", "noise", "engine_error") and kind of value."""


def limits(found: Found, *, quantized: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Return the largest steps and the largest mean steps that stored values may be off, by kind.

    Args:
        found: What was measured.
        quantized: Whether the engine quantised the weights. They are not the exact teacher's then, so records may be
            as far off as the engine is.
    """
    sources = ("noise", "rounding", *(("engine_error",) if quantized else ()))
    largest, mean = {}, {}
    for kind in found["stored"]:
        noise = {x: max(found[s][kind][x] for s in sources) for x in ("max_steps", "mean_steps")}
        allowed = LIMIT_STEPS.get(kind, _LIMIT_STEPS) + NOISE_TIMES * noise["max_steps"]
        largest[kind] = round(min(allowed, CEILING[kind]), 2)
        mean[kind] = round(min(MEAN_STEPS + MEAN_TIMES * noise["mean_steps"], MEAN_CEILING[kind]), 3)
    return largest, mean
