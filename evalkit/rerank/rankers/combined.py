"""Our ranker: shared votes of clusters, weighted by tests that trusted programs pass.

The rules were chosen by an ablation on MBPP's train and validation tasks (docs/results/selection.md), which no table of
results scores. docs/selection.md states the formula.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evalkit.rerank.evidence import Bool, Float64, Int64, TaskEvidence
from evalkit.rerank.rankers.clusters import all_programs, cluster, valid_programs
from evalkit.rerank.rankers.counting import random
from evalkit.rerank.rankers.functional_overlap import agreement
from evalkit.rerank.ranking import Ranking


@dataclass(frozen=True, kw_only=True, slots=True)
class VoteRules:
    """Parts of `combined`. The ablation changes one at a time."""

    size_power: float = 0.5
    """A cluster of n samples has n ** size_power votes."""
    counts_samples: bool = True
    """n counts samples; otherwise distinct programs."""
    times_power: float = 1.0
    """A test that was written m times has weight m ** times_power, times its trust."""
    trust_rounds: int = 1
    """How often tests are weighted by the votes that pass them; 0 gives all tests the trust 1."""
    rate_power: float = 1.0
    """Power of the share of tests passed."""
    least_rate: float = 0.01
    """Share of tests that a cluster is given at least, so that clusters which pass no test have an order."""
    shares_votes: bool = True
    """Clusters vote for one another by the share of inputs on which they agree."""
    own_power: float = 0.5
    """The sum of the votes for a cluster is multiplied by its own votes to this power."""
    only_valid: bool = True
    """Programs that SRank's rule calls invalid are ranked last."""
    examples_first: bool = False
    """Programs that pass all examples of the prompt are ranked before the others."""


RULES = VoteRules()
"""What the ablation found best."""


def combined(evidence: TaskEvidence) -> Ranking:
    """Prefer large clusters that pass trusted tests, and that agree with other such clusters.

    score(c) = sqrt(u(c)) * sum over d of a(c, d) * u(d), with u = v * r: v(c) is the square root of the samples of a
    cluster, r(c) its share of tests passed, each test weighted by how often it was written and by the votes v of the
    clusters that pass it, and a(c, d) the share of inputs on which two clusters return the same value.
    """
    return combined_by(evidence, RULES)


def combined_by(evidence: TaskEvidence, rules: VoteRules) -> Ranking:
    """Rank by other rules; `combined` uses `RULES`."""
    if not evidence.inputs:
        return random(evidence)
    counted = valid_programs(evidence) if rules.only_valid else all_programs(evidence)
    clusters = cluster(evidence.output_PI, counted)
    count_P = evidence.count_P if rules.counts_samples else np.ones(len(evidence.programs), np.int64)
    votes_C = ((clusters.member_CP @ count_P) ** rules.size_power).astype(np.float64)
    passed_CT = evidence.passed_PT[clusters.first_C]
    own_C = votes_C * _pass_rate(passed_CT, votes_C, evidence.times_T, rules)
    shared_C = agreement(evidence, clusters) @ own_C if rules.shares_votes else own_C
    score_C = shared_C * own_C**rules.own_power
    if rules.examples_first:
        passes_C = evidence.example_passed_PE[clusters.first_C].all(axis=1)
        score_C += passes_C * score_C.max(initial=0.0)
    scored = [
        (float(score), evidence.samples_of(member))
        for score, member in zip(np.round(score_C, 12), clusters.member_CP, strict=True)
    ]
    return Ranking.of([*scored, (-1.0, evidence.samples_of(~counted))])


def _pass_rate(passed_CT: Bool, votes_C: Float64, times_T: Int64, rules: VoteRules) -> Float64:
    """Return [C] the share of tests that each cluster passes, tests weighted by times written and trust.

    The trust of a test is the sum of the votes of the clusters that pass it. If no cluster passes any test, all shares
    are 1.
    """
    written_T = (times_T**rules.times_power).astype(np.float64)
    rate_C, trusted_C = _share(passed_CT, written_T), votes_C
    for _ in range(rules.trust_rounds):
        rate_C = _share(passed_CT, written_T * (trusted_C @ passed_CT))
        trusted_C = votes_C * rate_C
    if not rate_C.any():
        return np.ones(len(votes_C))
    return np.maximum(rate_C, rules.least_rate) ** rules.rate_power


def _share(passed_CT: Bool, weight_T: Float64) -> Float64:
    """Return [C] the weighted share of tests passed; 0 without weight."""
    share_C: Float64 = passed_CT @ weight_T / max(float(weight_T.sum()), 1e-300)
    return share_C
