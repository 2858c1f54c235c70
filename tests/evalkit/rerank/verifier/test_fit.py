"""Choice of a model on held-out tasks."""

from __future__ import annotations

import numpy as np
import pytest

from evalkit.errors import EvalError
from evalkit.rerank.verifier.fit import CANDIDATES, LOGISTIC, NUM_FOLDS, choose, fit, log_loss
from evalkit.rerank.verifier.models import probabilities
from tests.evalkit.rerank.verifier.toy_tasks import toy_task, toy_tasks

pytest.importorskip("sklearn")


def test_the_candidate_with_the_smallest_loss_on_the_validation_tasks_is_chosen() -> None:
    train, validation = toy_tasks(60), toy_tasks(30, first=100)
    fitted = choose(train, validation, candidates=CANDIDATES[:6])
    assert fitted.losses[str(fitted.candidate)] == min(fitted.losses.values())
    assert [task.evidence.task_id for task, _ in fitted.held_out] == [f"toy/{n}" for n in range(100, 130)]
    for task, right_P in fitted.held_out:
        assert right_P == pytest.approx(probabilities(fitted.model, task.rows_PF))
    assert log_loss(fitted.held_out) == pytest.approx(fitted.losses[str(fitted.candidate)])
    share = np.mean([task.right_N.mean() for task in train])
    constant = [(task, np.full(len(task.right_P), share)) for task in validation]
    assert log_loss(fitted.held_out) < log_loss(constant), "it learns nothing"


def test_without_validation_tasks_each_task_is_predicted_by_a_model_that_has_not_seen_it() -> None:
    train = toy_tasks(25)
    fitted = choose(train, [], candidates=LOGISTIC[1:3])
    assert sorted(task.evidence.task_id for task, _ in fitted.held_out) == sorted(t.evidence.task_id for t in train)
    task, right_P = fitted.held_out[0]
    same_fold = [other.evidence.task_id for other, _ in fitted.held_out[: len(train) // NUM_FOLDS]]
    rest = [other for other in train if other.evidence.task_id not in same_fold]
    assert probabilities(fit(fitted.candidate, rest), task.rows_PF) == pytest.approx(right_P)


def test_each_task_has_the_same_weight() -> None:
    (task,) = toy_tasks(1)
    assert task.weight_P.sum() == pytest.approx(1)
    assert task.weight_P.tolist() == pytest.approx([2 / 6, 2 / 6, 1 / 6, 1 / 6])


def test_tasks_without_right_or_wrong_programs_and_too_few_tasks_are_errors() -> None:
    with pytest.raises(EvalError, match="every program of the 3 training tasks is wrong; expected right and wrong"):
        choose([toy_task(number, all_right=False) for number in range(3)], [])
    with pytest.raises(EvalError, match="every program of the 2 training tasks is right"):
        choose([toy_task(number, all_right=True) for number in range(2)], toy_tasks(2))
    with pytest.raises(EvalError, match="4 training tasks are too few, expected 5 or more"):
        choose([toy_task(number, all_right=number % 2 == 0) for number in range(4)], [])


def test_constant_features_do_no_harm() -> None:
    tasks = [toy_task(0, all_right=True), toy_task(0, all_right=False)]
    model = fit(LOGISTIC[0], tasks)
    assert np.isfinite(probabilities(model, tasks[0].rows_PF)).all()
