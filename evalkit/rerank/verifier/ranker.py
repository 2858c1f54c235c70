"""The ranker of a verifier: LEVER's rule, which sums probabilities over programs with equal results."""

from __future__ import annotations

import numpy as np

from evalkit.rerank.evidence import Float64, TaskEvidence
from evalkit.rerank.rankers.clusters import Clusters, cluster
from evalkit.rerank.ranking import Ranking
from evalkit.rerank.verifier.features import log_probs


def lever(evidence: TaskEvidence, right_P: Float64, *, use_log_probs: bool) -> Ranking:
    """Prefer the outputs with the largest expected number of right samples (LEVER, arXiv 2302.08468).

    score of a cluster = sum over its programs of P(program) * P(right | program). P(program) is its share of the
    samples, the rule of the authors' code where no log-probability is known (niansong1996/lever). Programs that return
    no value share no cluster; without inputs every program is a cluster of its own.

    Args:
        evidence: The problem's evidence.
        right_P: [P] The verifier's probability that each program is right.
        use_log_probs: Take P(program) from its tokens' mean log-probability where all programs have one.
    """
    clusters = result_clusters(evidence)
    score_C = np.round(clusters.member_CP @ (_generation(evidence, use_log_probs) * right_P), 12)
    return Ranking.of(
        (float(score), evidence.samples_of(member)) for score, member in zip(score_C, clusters.member_CP, strict=True)
    )


def result_clusters(evidence: TaskEvidence) -> Clusters:
    """Return clusters of programs with equal outputs; a program that returns no value is a cluster of its own."""
    program_P1 = np.arange(len(evidence.programs), dtype=np.int64)[:, None]
    alone_P1 = evidence.is_value_PI.sum(axis=1)[:, None] == 0
    rows = np.concatenate([evidence.output_PI, np.where(alone_P1, program_P1, -1)], axis=1)
    return cluster(rows, np.ones(len(evidence.programs), np.bool_))


def _generation(evidence: TaskEvidence, use_log_probs: bool) -> Float64:
    """Return [P] the weight of each program: its share of the samples, or its likelihood per token."""
    known_P, log_prob_P = log_probs(evidence)
    if use_log_probs and known_P.all():
        likelihood_P: Float64 = np.exp(np.minimum(log_prob_P, 0.0))
        return likelihood_P
    share_P: Float64 = evidence.count_P / max(1, len(evidence.program_N))
    return share_P
