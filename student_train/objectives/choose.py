"""Choose the objective of a run: the only place that asks whether student and shards share a tokenizer."""

from __future__ import annotations

import torch

import shards
from student_train.config import Config
from student_train.model.loading import Student
from student_train.objectives.base import Objective
from student_train.objectives.cross_tokenizer import CrossTokenizer
from student_train.objectives.same_tokenizer import SameTokenizer


def choose_objective(config: Config, student: Student, cache: shards.Cache, *, device: torch.device) -> Objective:
    """Return the objective of a run.

    Args:
        config: Settings of the run.
        student: The student, on any device.
        cache: The shards, or the first part of a growing cache.
        device: Device on which the student trains.

    Raises:
        TrainError: The settings, the student and the shards do not fit together.
    """
    skip = max(0, len(cache.manifest.tokenizer.prefix_tokens) - 1)
    if student.other_tokenizer is None:
        return SameTokenizer.of(config, student, cache, skip=skip)
    return CrossTokenizer.of(config, student, cache, skip=skip, device=device)
