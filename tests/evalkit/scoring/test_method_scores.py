"""Scores of methods and their paired differences."""

from __future__ import annotations

import pytest

from evalkit.scoring.method_scores import score_methods
from evalkit.scoring.stats import difference, interval

RANDOM = [0.1, 0.5, 0.3, 0.0, 1.0, 0.2]
BETTER = [0.3, 0.9, 0.5, 0.1, 1.0, 0.9]


def test_estimates_and_differences_are_those_of_the_statistics() -> None:
    scores = score_methods({"random": {"pass@1": RANDOM}, "better": {"pass@1": BETTER}}, baseline="random")
    assert scores["better"].estimates == {"pass@1": interval(BETTER)}
    assert scores["better"].differences == {"pass@1": difference(BETTER, RANDOM)}
    assert scores["random"].differences["pass@1"].mean == 0.0
    content = scores["better"].to_dict()
    assert content["pass@1"] == pytest.approx(sum(BETTER) / 6)
    assert content["interval"]["pass@1"] == interval(BETTER).to_dict()
    assert scores["better"].differences_dict()["pass@1"]["low"] > 0


def test_without_problems_there_is_no_estimate() -> None:
    assert score_methods({"random": {"pass@1": []}}, baseline="random")["random"].estimates == {}
