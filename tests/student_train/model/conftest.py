"""Loading of students, for the tests of models."""

from __future__ import annotations

import dataclasses
from typing import Any

import shards
from student_train.model import loading as students


def load(world: Any, name: str = "teacher", *, layers: int = 0, seed: int = 0, **teacher: str) -> students.Student:
    cache = shards.open(str(world.shards))
    return students.load(
        name,
        layers=layers,
        teacher=dataclasses.replace(cache.manifest.teacher, **teacher),
        shards_tokenizer=cache.tokenizer_dir,
        seed=seed,
    )
