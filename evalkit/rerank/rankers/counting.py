"""Rankers that count: no preference, most frequent outputs, most tests passed."""

from __future__ import annotations

import numpy as np

from evalkit.rerank.evidence import TaskEvidence
from evalkit.rerank.rankers.clusters import all_programs, cluster, valid_programs
from evalkit.rerank.ranking import Ranking


def random(evidence: TaskEvidence) -> Ranking:
    """Have no preference: a uniform pick."""
    return Ranking(groups=(), scores=())


def majority(evidence: TaskEvidence) -> Ranking:
    """Prefer the outputs that most samples have on all inputs (MBR-exec, facebookresearch/mbr-exec)."""
    return _by_frequency(evidence, valid=False)


def majority_valid(evidence: TaskEvidence) -> Ranking:
    """Prefer the most frequent outputs of the programs that SRank's rule calls valid; the others come last."""
    return _by_frequency(evidence, valid=True)


def _by_frequency(evidence: TaskEvidence, *, valid: bool) -> Ranking:
    if not evidence.inputs:
        return random(evidence)
    counted = valid_programs(evidence) if valid else all_programs(evidence)
    clusters = cluster(evidence.output_PI, counted)
    sizes = clusters.member_CP @ evidence.count_P
    scored = [
        (float(size), evidence.samples_of(member)) for size, member in zip(sizes, clusters.member_CP, strict=True)
    ]
    return Ranking.of([*scored, (0.0, evidence.samples_of(~counted))])


def max_pass(evidence: TaskEvidence) -> Ranking:
    """Prefer the programs that pass most tests; a test counts as often as it was written."""
    if not evidence.tests:
        return random(evidence)
    passed_P = evidence.passed_PT @ evidence.times_T
    return Ranking.of((float(score), evidence.samples_of(passed_P == score)) for score in np.unique(passed_P))


def alphacode(evidence: TaskEvidence) -> Ranking:
    """Keep programs that pass the prompt's examples, and prefer the most frequent outputs (arXiv 2203.07814).

    If no program passes all examples, all programs are kept.
    """
    kept = evidence.example_passed_PE.sum(axis=1) == evidence.example_passed_PE.shape[1]
    if not kept.any():
        kept = all_programs(evidence)
    if not evidence.inputs:
        return Ranking.of([(1.0, evidence.samples_of(kept)), (0.0, evidence.samples_of(~kept))])
    clusters = cluster(evidence.output_PI, kept)
    sizes = clusters.member_CP @ evidence.count_P
    return Ranking.of((float(size), evidence.samples_of(m)) for size, m in zip(sizes, clusters.member_CP, strict=True))
