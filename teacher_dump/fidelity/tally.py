"""Sums of the differences between records, one tally per kind of value, with the place of the largest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from teacher_dump.fidelity.differences import Difference


@dataclass(slots=True)
class Tally:
    """Differences of one kind, added up over rows."""

    count: int = 0
    agreeing: int = 0
    total: float = 0.0
    total_steps: float = 0.0
    largest: float = 0.0
    largest_steps: float = 0.0
    where: tuple[int, int] = field(default=(-1, -1))
    """Row and position of the most steps."""

    def add(self, difference: Difference, row: int, first: int = 0) -> None:
        """Add the differences of some positions of a row, `first` of them being the first."""
        if not len(difference.absolute):
            return
        self.count += len(difference.absolute)
        self.agreeing += int((difference.absolute == 0).sum())
        self.total += float(difference.absolute.sum())
        self.total_steps += float(difference.steps.sum())
        self.largest = max(self.largest, float(difference.absolute.max()))
        worst = int(difference.steps.argmax())
        if self.where[0] < 0 or difference.steps[worst] > self.largest_steps:
            self.largest_steps = float(difference.steps[worst])
            self.where = (row, first + int(difference.position[worst]))

    def to_dict(self, *, with_place: bool) -> dict[str, Any]:
        """Return the JSON form, with row and position of the most steps where asked for."""
        place = {"row": self.where[0], "position": self.where[1]} if with_place else {}
        return {
            "mean": _rounded(self.total / max(1, self.count)),
            "max": _rounded(self.largest),
            "mean_steps": _rounded(self.total_steps / max(1, self.count)),
            "max_steps": _rounded(self.largest_steps),
            "agree": self.agreeing / max(1, self.count),
            **place,
        }


def add_all(tallies: dict[str, Tally], differences: Mapping[str, Difference], row: int, first: int = 0) -> None:
    """Add differences of every kind."""
    for name, difference in differences.items():
        tallies.setdefault(name, Tally()).add(difference, row, first)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
