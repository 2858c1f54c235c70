"""Rankers of dual agreement between programs and tests: CodeT, B4 and ACES."""

from __future__ import annotations

import math

import numpy as np

from evalkit.rerank.evidence import Bool, Float64, TaskEvidence
from evalkit.rerank.rankers.clusters import all_programs, cluster
from evalkit.rerank.rankers.counting import random
from evalkit.rerank.ranking import Ranking

B4_BETA_0, B4_ALPHA_XY = 1e5, 1e3
"""Priors of B4: the middle of the range that its authors try, and their only value (ZJU-CTAG/B4, main.py)."""


def codet(evidence: TaskEvidence) -> Ranking:
    """Prefer large groups of programs that pass the same large set of tests (CodeT, arXiv 2207.10397).

    score = sqrt(samples of the group) * tests passed, each test as often as it was written. Programs that pass no test
    are in no group. The authors' code is followed where it differs from the paper (microsoft/CodeT, src/agreement.py).
    """
    passes = evidence.passed_PT.sum(axis=1) > 0
    if not passes.any():
        return random(evidence)
    groups = cluster(evidence.passed_PT, passes)
    samples = groups.member_CP @ evidence.count_P
    tests = evidence.passed_PT[groups.first_C] @ evidence.times_T
    scores = np.sqrt(samples) * tests
    return Ranking.of(
        (float(score), evidence.samples_of(member)) for score, member in zip(scores, groups.member_CP, strict=True)
    )


def b4(evidence: TaskEvidence) -> Ranking:
    """Prefer the consensus set with the largest posterior under Beta priors (B4, arXiv 2409.08692).

    As in the authors' code, each distinct program and each distinct test counts once (ZJU-CTAG/B4, strategy.py).
    """
    if not evidence.tests:
        return random(evidence)
    groups = cluster(evidence.passed_PT, all_programs(evidence))
    return Ranking.of(
        (_b4_score(evidence.passed_PT, member), evidence.samples_of(member)) for member in groups.member_CP
    )


def _b4_score(passed_PT: Bool, member_P: Bool) -> float:
    row_T = passed_PT[np.flatnonzero(member_P)[0]]
    others = passed_PT[~member_P]
    on_passed, on_failed = others[:, row_T], others[:, ~row_T]
    score = _log_beta(int(row_T.sum()), row_T.size, alpha=B4_ALPHA_XY)
    score += _log_beta(int(member_P.sum()), member_P.size, alpha=B4_ALPHA_XY)
    score += _log_beta(int(on_passed.sum()), on_passed.size)
    score += _log_beta(int(on_failed.sum()), on_failed.size, beta=B4_BETA_0)
    return round(score, 9)


def _log_beta(successes: int, trials: int, *, alpha: float = 1.0, beta: float = 1.0) -> float:
    a, b = successes + alpha, trials - successes + beta
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def aces(evidence: TaskEvidence) -> Ranking:
    """Weight each test by its leave-one-out AUC, and prefer the programs with most weight passed (arXiv 2604.03922)."""
    if not evidence.tests:
        return random(evidence)
    weight_T = aces_weights(evidence)
    if not weight_T.any():
        return random(evidence)
    score_P = np.round(evidence.passed_PT @ weight_T, 9)
    return Ranking.of((float(score), evidence.samples_of(score_P == score)) for score in np.unique(score_P))


def aces_weights(evidence: TaskEvidence) -> Float64:
    """Return [T] weights max(0, AUC - 1/2) * p * (1 - p) * times written.

    AUC is that of the programs' votes on all other tests as a predictor of passing this one; p is the share of samples
    that pass it. The paper proves that AUC - 1/2 grows with the test's power to separate right from wrong programs. For
    a mixture of the two, the difference in right programs between those that pass and those that fail is that power
    divided by p (1 - p), which the factor cancels. The weights were derived here and not compared with the authors'.
    """
    passed_NT = evidence.passed_PT[evidence.program_N].astype(np.float64)
    times_T = evidence.times_T.astype(np.float64)
    votes_N = passed_NT @ times_T
    weights = np.zeros(len(times_T))
    for test in range(len(times_T)):
        passes = passed_NT[:, test] > 0
        share = float(passes.mean())
        if 0 < share < 1:
            others_N = votes_N - passed_NT[:, test] * times_T[test]
            weights[test] = max(0.0, auc(others_N, passes) - 0.5) * share * (1 - share) * times_T[test]
    return weights


def auc(score_N: Float64, positive_N: Bool) -> float:
    """Return the probability that a positive has a larger score than a negative; ties count one half."""
    _, rank_N, counts = np.unique(score_N, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2  # average rank of equal scores, from 1
    num_positive = int(positive_N.sum())
    rank_sum = middle[rank_N.reshape(-1)][positive_N].sum()
    above = rank_sum - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * (len(score_N) - num_positive)))
