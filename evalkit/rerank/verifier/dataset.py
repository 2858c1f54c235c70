"""Labelled tasks: the features of each distinct program, and whether it passes the benchmark's tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.rerank.evidence import Bool, Float64, TaskEvidence
from evalkit.rerank.verifier.features import feature_matrix


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledTask:
    """One task to learn from, or to measure on. Axes as in `rerank/evidence.py`."""

    evidence: TaskEvidence
    rows_PF: Float64
    right_P: Bool
    """[P] Whether each program passes the benchmark's tests."""

    @classmethod
    def of(cls, evidence: TaskEvidence, passed_N: Sequence[bool]) -> LabelledTask:
        """Return a task whose samples have these verdicts."""
        right_P = np.bincount(evidence.program_N, np.array(passed_N), minlength=len(evidence.programs)) > 0
        return cls(evidence=evidence, rows_PF=feature_matrix(evidence), right_P=right_P)

    @property
    def weight_P(self) -> Float64:
        """[P] Share of the task's samples: each task has the weight 1, as LEVER averages its loss."""
        weight: Float64 = self.evidence.count_P / len(self.evidence.program_N)
        return weight

    @property
    def right_N(self) -> Bool:
        """[N] Whether each sample is right."""
        return self.right_P[self.evidence.program_N]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRows:
    """The programs of several tasks, one row each."""

    rows_NF: Float64
    right_N: Bool
    weight_N: Float64

    @classmethod
    def of(cls, tasks: Sequence[LabelledTask]) -> TrainingRows:
        """Return the rows of `tasks`."""
        return cls(
            rows_NF=np.concatenate([task.rows_PF for task in tasks]),
            right_N=np.concatenate([task.right_P for task in tasks]),
            weight_N=np.concatenate([task.weight_P for task in tasks]),
        )
