"""Tests of the objective for a student with the shards' tokenizer."""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import pytest
import torch

import shards
from student_train.config import Config
from student_train.data.packing import Packing
from student_train.errors import TrainError
from student_train.losses.fused_linear import LossSpec
from student_train.losses.targets import TargetSpec
from student_train.objectives.base import LossScale
from student_train.objectives.distiller import Distiller
from student_train.objectives.same_tokenizer import SameTokenizer

OBJECTIVE = SameTokenizer(
    loss_spec=LossSpec(divergence="bucket-js", ce_weight=0.25),
    targets=TargetSpec(vocab_size=60, target_kind="bucket"),
    max_row_tokens=64,
)
PACKING = Packing(micro_tokens=1000)


def test_weights_are_those_of_the_configuration_and_sum_to_one() -> None:
    assert OBJECTIVE.weights(OBJECTIVE.initial_state()) == {"kd": 0.75, "ce": 0.25}
    sft = dataclasses.replace(OBJECTIVE, loss_spec=LossSpec(divergence=None, ce_weight=0.25))
    assert sft.weights(None) == {"ce": 1.0}
    assert sft.parts == ("ce",)


def test_the_loss_is_the_weighted_sum_of_the_parts_means(tools: Any) -> None:
    (batch,) = OBJECTIVE.batches([tools.random_row(n, seed=n) for n in (20, 9)], PACKING)
    scale = LossScale(weights=OBJECTIVE.weights(None), totals=batch.targets.counts)
    out = Distiller(tools.llama(vocab=60), OBJECTIVE, dtype="float32")(batch, scale)
    expected = sum(weight * out.terms[part].mean() for part, weight in scale.weights.items())
    torch.testing.assert_close(out.loss, expected)


def test_held_out_targets_are_the_same_whatever_the_run_trains(tools: Any) -> None:
    rows = [tools.random_row(n, seed=n) for n in (20, 9)]
    plain = dataclasses.replace(
        OBJECTIVE,
        targets=TargetSpec(vocab_size=60, target_kind="linear"),
        loss_spec=LossSpec(divergence="forward-kl", ce_weight=0.3),
    )
    found, expected = (objective.held_out_batches(rows, PACKING)[0].targets for objective in (OBJECTIVE, plain))
    for field in dataclasses.fields(expected):
        assert torch.equal(getattr(found, field.name), getattr(expected, field.name))


def test_terms_are_traced_back_to_their_rows(tools: Any) -> None:
    (batch,) = OBJECTIVE.batches([tools.random_row(n, seed=n) for n in (5, 9, 7)], PACKING)
    assert OBJECTIVE.rows_with(batch, {"kd": [3], "ce": [4, 13]}) == list(batch.rows)
    assert OBJECTIVE.rows_with(batch, {"kd": [], "ce": [12]}) == [batch.rows[2]]
    assert OBJECTIVE.rows_with(OBJECTIVE.empty_batch(), {"kd": [], "ce": []}) == []


def test_an_id_of_a_specialist_that_the_student_lacks_is_refused(world: Any) -> None:
    student: Any = types.SimpleNamespace(vocab_size=60, max_row_tokens=64)
    config = Config(specialist=(5, 60))
    with pytest.raises(TrainError, match="specialist has id 60; the student has 60 ids"):
        SameTokenizer.of(config, student, [shards.open(str(world.shards))], skip=0)
