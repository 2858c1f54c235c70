"""Tests of the options of an evaluation."""

from __future__ import annotations

import pytest

from student_train.errors import TrainError
from student_train.evaluation.request import EvaluationRequest


def test_models_are_in_order_and_none_means_training() -> None:
    assert EvaluationRequest().models == ()
    assert EvaluationRequest(evaluate="a").models == ("a",)
    assert EvaluationRequest(evaluate="a", vs="b").models == ("a", "b")


@pytest.mark.parametrize("name", ["vs", "json"])
def test_options_of_an_evaluation_need_a_model(name: str) -> None:
    with pytest.raises(TrainError, match=f"{name} is x, which needs --evaluate MODEL"):
        EvaluationRequest(**{name: "x"})
