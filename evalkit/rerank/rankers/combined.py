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
    shares_votes: bool = True
    """Clusters vote for one another by the share of inputs on which they agree."""
    only_valid: bool = True
    """Programs that SRank's rule calls invalid are ranked last."""
    examples_first: bool = False
    """Programs that pass all examples of the prompt are ranked before the others."""


RULES = VoteRules()
"""What the ablation found best."""


def combined(evidence: TaskEvidence) -> Ranking:
    """Prefer clusters that agree with clusters which are large and pass tests that such clusters pass."""
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
    score_C = votes_C * _pass_rate(passed_CT, votes_C, evidence.times_T, rules)
    if rules.shares_votes:
        score_C = agreement(evidence, clusters) @ score_C
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

    The trust of a test is the share of votes that pass it. If no cluster passes any test, all shares are 1.
    """
    rate_C = np.ones(len(votes_C))
    written_T = (times_T**rules.times_power).astype(np.float64)
    weight_T = written_T
    for turn in range(rules.trust_rounds + 1):
        if turn:
            weight_T = written_T * (votes_C * rate_C @ passed_CT)
        total = float(weight_T.sum())
        if not total:
            return np.ones(len(votes_C))
        rate_C = (passed_CT @ weight_T / total) ** rules.rate_power if turn == rules.trust_rounds else rate_C
    return rate_C
