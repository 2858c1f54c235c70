"""Tests of the choice of an objective."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch

import shards
from student_train.config import Config
from student_train.objectives.choose import choose_objective
from student_train.objectives.cross_tokenizer import CrossTokenizer
from student_train.objectives.same_tokenizer import SameTokenizer


@pytest.mark.parametrize(("difference", "expected"), [(None, SameTokenizer), ("of its ids", CrossTokenizer)])
def test_the_students_tokenizer_decides(
    difference: str | None, expected: type, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    student: Any = types.SimpleNamespace(other_tokenizer=difference)
    for kind in (SameTokenizer, CrossTokenizer):
        monkeypatch.setattr(kind, "of", classmethod(lambda cls, *_, **__: cls))
    cache = shards.open(str(world.shards))
    assert choose_objective(Config(), student, [cache], device=torch.device("cpu")) is expected
