"""Tests of the table of divergences."""

from __future__ import annotations

import pytest

from student_train import choices
from student_train.losses.divergences import DIVERGENCES, target_kind


def test_every_divergence_of_the_command_line_is_in_the_table() -> None:
    assert set(DIVERGENCES) == set(choices.DIVERGENCES)


@pytest.mark.parametrize("name", choices.DIVERGENCES)
def test_a_divergence_on_the_partition_is_named_bucket(name: str) -> None:
    assert (DIVERGENCES[name].target_kind == "bucket") == name.startswith("bucket-")
    assert (DIVERGENCES[name].of_class is not None) == name.startswith("bucket-")


def test_the_kind_of_targets_follows_from_objective_and_divergence() -> None:
    assert target_kind("sft", "bucket-js") == "none"
    assert target_kind("sft", "forward-kl", specialist=True) == "none"
    assert target_kind("kd", "forward-kl") == "linear"
    assert target_kind("kd", "forward-kl", specialist=True) == "specialist"
    assert target_kind("kd", "bucket-reverse-kl") == "bucket"
    assert target_kind("kd", "rs-kd") == "rs-kd"
    assert target_kind("kd", "top-k") == "top-k"
