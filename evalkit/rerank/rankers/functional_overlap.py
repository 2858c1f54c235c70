"""SRank: clusters with partly equal outputs share their votes."""

from __future__ import annotations

import numpy as np

from evalkit.rerank.evidence import Bool, Float64, TaskEvidence
from evalkit.rerank.rankers.clusters import Clusters, all_programs, cluster, valid_programs
from evalkit.rerank.rankers.counting import random
from evalkit.rerank.ranking import Ranking


def srank(evidence: TaskEvidence) -> Ranking:
    """Prefer clusters that are large, pass tests and agree with other such clusters (SRank, arXiv 2311.03366).

    V = share of distinct programs * share of (input, expected value) pairs that hold; score = A V, where A[i, j] is the
    share of inputs on which clusters i and j return the same value. As in the authors' code, a pair counts as often as
    it was written, all failures of a call are equal, and programs that are not valid have score 0
    (FSoft-AI4Code/SRank-CodeRanker, execution/run.py, reranking/functionality_processing.py).
    """
    return _srank(evidence, weighted=True, valid=True)


def srank_unweighted(evidence: TaskEvidence) -> Ranking:
    """Rank as SRank does, with each distinct pair counted once."""
    return _srank(evidence, weighted=False, valid=True)


def srank_all(evidence: TaskEvidence) -> Ranking:
    """Rank as SRank does, without its validity rule."""
    return _srank(evidence, weighted=True, valid=False)


def _srank(evidence: TaskEvidence, *, weighted: bool, valid: bool) -> Ranking:
    if not evidence.inputs:
        return random(evidence)
    counted = valid_programs(evidence) if valid else all_programs(evidence)
    clusters = cluster(np.where(evidence.is_value_PI, evidence.output_PI, -1), counted)
    is_pair_T = np.array([test.input is not None and test.names_value for test in evidence.tests], np.bool_)
    weight_T = np.where(is_pair_T, evidence.times_T if weighted else 1, 0).astype(np.float64)
    rate_C = _pass_rate(evidence.passed_PT[clusters.first_C], weight_T)
    share_C = clusters.member_CP.sum(axis=1) / max(1, int(counted.sum()))
    return _ranking(evidence, clusters, agreement(evidence, clusters) @ (share_C * rate_C), counted)


def agreement(evidence: TaskEvidence, clusters: Clusters) -> Float64:
    """Return [C, C] the share of inputs on which two clusters return the same value; 1 on the diagonal."""
    outputs, values = evidence.output_PI[clusters.first_C], evidence.is_value_PI[clusters.first_C]
    matrix = np.ones((len(clusters), len(clusters)))
    for i in range(len(clusters)):  # row by row: all at once would take the square of the clusters, times the inputs
        matrix[i] = ((outputs == outputs[i]) & values & values[i]).mean(axis=1)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def _pass_rate(passed_CT: Bool, weight_T: Float64) -> Float64:
    """Return [C] the weighted share of tests passed; 0 without any test."""
    total = float(weight_T.sum())
    if not total:
        return np.zeros(len(passed_CT))
    rate: Float64 = passed_CT @ weight_T / total
    return rate


def _ranking(evidence: TaskEvidence, clusters: Clusters, score_C: Float64, counted: Bool) -> Ranking:
    scored = [
        (float(score), evidence.samples_of(member))
        for score, member in zip(np.round(score_C, 12), clusters.member_CP, strict=True)
    ]
    return Ranking.of([*scored, (0.0, evidence.samples_of(~counted))])
