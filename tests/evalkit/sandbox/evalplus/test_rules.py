"""EvalPlus' rules for comparing an answer with the reference's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evalkit.sandbox.evalplus.rules import agrees


@pytest.mark.parametrize(
    ("answer", "expected", "tolerance", "same"),
    [
        (1.0 + 1e-8, 1.0, 1e-6, True),
        (1.1, 1.0, 1e-6, False),
        (1, 1.0 + 1e-8, 1e-6, False),  # another type, not equal
        ([1.0, 2.0 + 1e-9], [1.0, 2.0], 1e-6, True),
        ((1.0,), [1.0 + 1e-9], 1e-6, False),
        ([1.0], [1.0, 2.0], 1e-6, False),
        ("a", "b", 1e-6, False),
        (float("nan"), float("nan"), 1e-6, False),
        ([1], [1], 0.0, True),
    ],
)
def test_answers_are_compared_by_evalplus_rules(answer: Any, expected: Any, tolerance: float, same: bool):
    assert agrees("HumanEval/0", "f", [], answer, expected, tolerance) is same


@pytest.mark.parametrize(
    ("name", "args", "answer", "expected", "passes"),
    [
        ("similar_elements", [], (3, 2, 2), (2, 3), True),
        ("similar_elements", [], np.array([2, 3]), (2, 3), True),
        ("similar_elements", [], 3, (2, 3), False),
        ("check_str", [], True, True, True),
        ("check_str", [], "anything", True, True),
        ("check_str", [], None, True, False),
        ("check_str", [], False, True, False),
        ("are_equivalent", [], None, True, True),
        ("sum_div", [1], 0, 1, True),
        ("surface_Area", [3, 4], 33, 0, False),
        ("digit_distance_nums", [1, 23], 4, 0, True),
    ],
)
def test_mbpp_tasks_with_an_oracle(name: str, args: list[Any], answer: Any, expected: Any, passes: bool):
    assert agrees("Mbpp/1", name, args, answer, expected, 0.0) is passes
    assert agrees("HumanEval/1", "find_zero", [[-2.0, 1.0]], 2.0, 0, 1e-4)
    assert not agrees("HumanEval/1", "find_zero", [[-2.0, 1.0]], 2.1, 0, 1e-4)
