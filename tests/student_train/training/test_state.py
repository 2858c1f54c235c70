"""Tests of the state that checkpoints hold."""

from __future__ import annotations

import dataclasses
import json

import pytest

from student_train.model.base import BaseDigests
from student_train.objectives.base import ObjectiveState
from student_train.objectives.row_score import RowScore
from student_train.training.state import Handover, TrainState

ROW = RowScore(document="d", window=0, tokens=3, bytes=9, kl_sum=1.5, nll_sum=2.0, top1_sum=1, bins=[[0.0, 0.0, 0.0]])
FRESH = TrainState(
    config={"seed": 3},
    manifest_sha256="m",
    base=BaseDigests(weights_sha256="w", config_sha256="c"),
    handover=Handover(segments=[], before=[ROW], teacher_completions=["x"]),
)


@pytest.mark.parametrize("objective", [None, ObjectiveState(norms={"ce": 0.5}, left_out={"rows cut": 2})])
def test_a_state_resumes_from_what_it_wrote(objective: ObjectiveState | None) -> None:
    state = dataclasses.replace(FRESH, step=7, tokens=900, seconds=1.5, empty_steps=1, objective=objective)
    stored = json.loads(json.dumps(state.to_dict()))
    assert Handover.from_state(stored) == state.handover
    assert FRESH.resume(stored) == state


def test_keys_of_an_objective_are_there_only_where_it_has_a_state() -> None:
    assert {"norms", "left_out", "empty_steps"}.isdisjoint(FRESH.to_dict())
    with_state = dataclasses.replace(FRESH, objective=ObjectiveState(norms={}, left_out={}))
    assert {"norms", "left_out"} <= with_state.to_dict().keys()
