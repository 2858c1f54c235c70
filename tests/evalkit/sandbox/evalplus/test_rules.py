"""Tests of the rules by which EvalPlus compares return values."""

from __future__ import annotations

import pytest

from evalkit.sandbox.evalplus.rules import agrees


@pytest.mark.parametrize(
    ("given", "wanted", "tolerance", "same"),
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
def test_answers_are_compared_by_evalplus_rules(given, wanted, tolerance: float, same: bool):
    assert agrees("HumanEval/0", "f", [], given, wanted, tolerance) is same
