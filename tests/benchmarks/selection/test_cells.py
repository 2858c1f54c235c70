"""Titles of the page say which part of a benchmark a table is about."""

from __future__ import annotations

import pytest

from benchmarks.selection.cells import title


@pytest.mark.parametrize(
    ("task", "problems", "left_out", "expected"),
    [
        ("humaneval", 164, 0, "SmolLM2-135M-Instruct, HumanEval"),
        ("mbpp", 500, 0, "SmolLM2-135M-Instruct, MBPP"),
        ("mbpp", 499, 1, "SmolLM2-135M-Instruct, MBPP"),
        ("mbpp", 179, 1, "SmolLM2-135M-Instruct, MBPP (a fixed random part: 180 of 500 tasks)"),
    ],
)
def test_a_title_says_which_part_of_a_benchmark_was_scored(
    task: str, problems: int, left_out: int, expected: str
) -> None:
    facts = {"problems": problems, "left_out": left_out}
    assert title({"model": "smollm2-135m-instruct", "task": task, "facts": facts}) == expected
