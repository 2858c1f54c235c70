"""Recall of a search: how many of the pages that problems need are among the first hits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.tasks.base import Problem

CUTOFFS = (1, 5)
"""Numbers of hits at which recall is reported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalRecall:
    """Recall over the problems that name their pages."""

    problems: int
    pages: int
    """Pages that these problems need, each problem's own."""
    recall: dict[int, float]
    """Mean over problems of the share of a problem's pages among the first hits, by their number."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as results hold them."""
        shares = {f"recall@{cutoff}": share for cutoff, share in self.recall.items()}
        return {"problems": self.problems, "pages": self.pages, **shares}


def measure_recall(problems: Sequence[Problem], search: Callable[[Problem, int], list[str]]) -> RetrievalRecall | None:
    """Search for every problem that names its pages.

    Args:
        problems: Problems; those without pages are left out.
        search: Function from a problem and a number to the names of so many hits, the best first.

    Returns:
        The recall; None if no problem names a page.
    """
    needing = [problem for problem in problems if problem.pages]
    if not needing:
        return None
    sums = dict.fromkeys(CUTOFFS, 0.0)
    for problem in needing:
        hits = search(problem, max(CUTOFFS))
        for cutoff in CUTOFFS:
            sums[cutoff] += len(set(problem.pages) & set(hits[:cutoff])) / len(problem.pages)
    return RetrievalRecall(
        problems=len(needing),
        pages=sum(len(problem.pages) for problem in needing),
        recall={cutoff: total / len(needing) for cutoff, total in sums.items()},
    )
