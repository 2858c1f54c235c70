"""Clusters of programs with equal rows, and the validity rule of SRank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evalkit.rerank.evidence import NONE_CODE, Bool, Int64, TaskEvidence


@dataclass(frozen=True, kw_only=True, slots=True)
class Clusters:
    """C clusters of programs whose rows are equal."""

    member_CP: Bool
    """[C, P] Members of each cluster."""
    first_C: Int64
    """[C] A member of each cluster."""

    def __len__(self) -> int:
        return len(self.first_C)


def cluster(rows_PX: npt.NDArray[np.generic], programs: Bool) -> Clusters:
    """Group programs by equal rows.

    Args:
        rows_PX: [P, X] What is compared: outputs, or passed tests. With X = 0 all programs are in one cluster.
        programs: [P] The programs to group; the others are in no cluster.
    """
    chosen = np.flatnonzero(programs)
    if not len(chosen):
        return Clusters(member_CP=np.zeros((0, len(programs)), np.bool_), first_C=np.zeros(0, np.int64))
    if rows_PX.shape[1]:
        _, first, inverse = np.unique(rows_PX[chosen], axis=0, return_index=True, return_inverse=True)
    else:
        first, inverse = np.zeros(1, np.int64), np.zeros(len(chosen), np.int64)
    members = np.zeros((len(first), len(programs)), np.bool_)
    members[inverse.reshape(-1), chosen] = True
    return Clusters(member_CP=members, first_C=chosen[first].astype(np.int64))


def valid_programs(evidence: TaskEvidence) -> Bool:
    """Return [P] whether SRank counts a program: it returns a value for some input, and not always the same value.

    A call that fails counts as None. With a single input the second condition does not apply
    (FSoft-AI4Code/SRank-CodeRanker, reranking/utils.py).
    """
    if not evidence.inputs:
        return np.ones(len(evidence.programs), np.bool_)
    runs: Bool = evidence.is_value_PI.sum(axis=1) > 0
    if len(evidence.inputs) == 1:
        return runs
    value_PI = np.where(evidence.is_value_PI, evidence.output_PI, NONE_CODE)
    constant = (value_PI == value_PI[:, :1]).all(axis=1)
    valid: Bool = runs & ~constant
    return valid


def all_programs(evidence: TaskEvidence) -> Bool:
    """Return [P] marks of all programs."""
    return np.ones(len(evidence.programs), np.bool_)
