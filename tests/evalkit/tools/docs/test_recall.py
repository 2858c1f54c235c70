"""Tests of the recall of a search."""

from __future__ import annotations

import pytest

from evalkit.tasks.base import Problem
from evalkit.tools.docs.recall import measure_recall


def problem(task_id: str, *pages: str) -> Problem:
    return Problem(
        task_id=task_id, prompt="", entry_points=("f",), prelude="", test="", reference="", pages=tuple(pages)
    )


HITS = {"T/0": ["a", "b"], "T/1": ["x", "c", "d"], "T/2": [], "T/3": ["a"]}


def search(item: Problem, limit: int) -> list[str]:
    return HITS[item.task_id][:limit]


def test_recall_is_the_mean_share_of_pages_among_the_first_hits() -> None:
    problems = [problem("T/0", "a"), problem("T/1", "c", "d", "e"), problem("T/2", "a"), problem("T/3")]
    recall = measure_recall(problems, search)
    assert recall is not None
    assert recall.to_dict() == {
        "problems": 3,
        "pages": 5,
        "recall@1": pytest.approx((1 + 0 + 0) / 3),
        "recall@5": pytest.approx((1 + 2 / 3 + 0) / 3),
    }


def test_problems_without_pages_have_no_recall() -> None:
    assert measure_recall([problem("T/3")], search) is None
