"""Values of `--shards`: the caches of a run, and the share of its tokens that each has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from student_train.errors import TrainError

_WITH_WEIGHT = re.compile(r"(?P<path>.+)=(?P<weight>[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSource:
    """A cache to train on."""

    path: str
    """Folder or URL."""
    weight: Fraction | None
    """Weight beside the other caches, as it was written; None without one."""


def parse_sources(values: Sequence[str]) -> tuple[ShardSource, ...]:
    """Return the caches that `--shards` names.

    A value is `PATH` or `PATH=WEIGHT`. A path whose own name ends in `=NUMBER` is written with a slash at its end.

    Args:
        values: The values, in order.

    Raises:
        TrainError: There is no value, a weight is not above 0, or only some caches have one.
    """
    if not values:
        raise TrainError("shards: found none, expected at least one folder or URL of a cache; give --shards DIR")
    sources = tuple(_source(value) for value in values)
    without = [source.path for source in sources if source.weight is None]
    if without and len(without) < len(sources):
        raise TrainError(
            f"shards: found no weight for {without[0]} and weights for {len(sources) - len(without)} others, expected "
            f"one for each cache or for none; write {without[0]}=WEIGHT"
        )
    return sources


def shares_of(sources: Sequence[ShardSource]) -> tuple[Fraction, ...] | None:
    """Return the weights divided by their sum; None without weights."""
    weights = [source.weight for source in sources if source.weight is not None]
    return tuple(weight / sum(weights) for weight in weights) if weights else None


def _source(value: str) -> ShardSource:
    match = _WITH_WEIGHT.fullmatch(value)
    if match is None:
        return ShardSource(path=value, weight=None)
    weight = Fraction(match["weight"])
    if weight <= 0:
        raise TrainError(
            f"shards: found weight {match['weight']} for {match['path']}, expected a number above 0; leave a cache "
            "out that is not wanted"
        )
    return ShardSource(path=match["path"], weight=weight)
