"""Labelled tasks made by a rule: larger clusters that pass more tests are right more often."""

from __future__ import annotations

import dataclasses

import numpy as np

from evalkit.rerank.verifier.fit import LabelledTask
from tests.evalkit.rerank.toy_evidence import evidence_of


def toy_task(number: int, *, all_right: bool | None = None) -> LabelledTask:
    """Return task `number` with six samples of four programs; `all_right` overrides the rule."""
    generator = np.random.default_rng(number)
    passed = generator.random((4, 5)) < generator.random((4, 1))
    outputs = generator.integers(-1, 2, size=(4, 3))
    evidence = evidence_of(outputs=outputs.tolist(), passed=passed.tolist(), samples=[0, 1, 2, 3, 0, 1])
    evidence = dataclasses.replace(evidence, task_id=f"toy/{number}")
    right = passed.sum(axis=1) + generator.normal(size=4) > 3
    if all_right is not None:
        right[:] = all_right
    return LabelledTask.of(evidence, right[evidence.program_N].tolist())


def toy_tasks(count: int, *, first: int = 0) -> list[LabelledTask]:
    """Return tasks with consecutive numbers."""
    return [toy_task(number) for number in range(first, first + count)]
