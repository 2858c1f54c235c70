"""Limits of `teacher-dump --check`: how far stored values may be from the exact distribution.

Distances are in steps of the code that stores a value (`teacher_dump.fidelity.differences`). The check tests two
statistics of each kind of value: the largest distance detects a single wrong value, the mean an error in all values.
Both limits grow with the rounding noise of the engine's dtype, which the model's plain forward measures, and with the
differences between two runs of the engine. A ceiling bounds both, because a faulty engine can produce any noise.

docs/decisions/0009-allowances-of-the-check.md has the measurements behind the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

LIMIT_STEPS = {"draws": 0.5}
"""Largest steps without noise, where the limit is not 3. The step of a draw is the mass that it stands for; without
noise its place is exact."""
_LIMIT_STEPS = 3.0
NOISE_TIMES = 4.0
"""Factor of the largest noise in the limit of the largest steps. Both are maxima over the same positions."""
MEAN_STEPS = 0.5
"""Largest mean steps without noise. Rounding to a code costs a quarter of a step on average."""
MEAN_TIMES = 2.0
"""Factor of the mean noise in the limit of the mean steps."""
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
"""Upper bound of the largest steps: about four times the largest steps measured with a correct bfloat16 engine."""
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
"""Upper bound of the mean steps, by the same rule."""

Statistics = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Statistics by side ("stored", "rounding", "noise", "engine_error") and kind of value, as in check.json."""


def limits(statistics: Statistics, *, quantized: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Return the limits of the largest steps and of the mean steps, by kind of value.

    Args:
        statistics: The measured statistics.
        quantized: Whether the engine quantised the weights. They then differ from the exact teacher's, so records may
            be as far off as the engine is.
    """
    sources = ("noise", "rounding", *(("engine_error",) if quantized else ()))
    largest, mean = {}, {}
    for kind in statistics["stored"]:
        noise = {name: max(statistics[s][kind][name] for s in sources) for name in ("max_steps", "mean_steps")}
        allowed = LIMIT_STEPS.get(kind, _LIMIT_STEPS) + NOISE_TIMES * noise["max_steps"]
        largest[kind] = round(min(allowed, CEILING[kind]), 2)
        mean[kind] = round(min(MEAN_STEPS + MEAN_TIMES * noise["mean_steps"], MEAN_CEILING[kind]), 3)
    return largest, mean


def problems(statistics: Statistics, largest: Mapping[str, float], mean: Mapping[str, float]) -> Iterator[str]:
    """Yield a line for each kind of value that exceeds a limit.

    Args:
        statistics: The measured statistics.
        largest: Limits of the largest steps, by kind.
        mean: Limits of the mean steps, by kind.
    """
    for kind, limit in largest.items():
        stored, engine = statistics["stored"][kind], statistics["engine_error"][kind]
        if stored["max_steps"] > limit:
            yield (
                f"{kind}: row {stored['row']} position {stored['position']} is {stored['max_steps']:g} steps from the "
                f"exact teacher, expected at most {limit:g}; {_cause(engine['max_steps'] > limit)}"
            )
        elif stored["mean_steps"] > (mean_limit := mean[kind]):
            yield (
                f"{kind}: {stored['mean_steps']:g} steps from the exact teacher on average, expected at most "
                f"{mean_limit:g}; {_cause(engine['mean_steps'] > mean_limit)}"
            )


def _cause(engine_is_off: bool) -> str:
    if engine_is_off:
        return "a fresh run of the engine is as far off: the engine and the reference disagree"
    return "a fresh run of the engine is not: the records do not come from these weights"
