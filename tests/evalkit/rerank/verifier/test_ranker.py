"""LEVER's rule: probabilities summed over samples with equal outputs."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.rerank.evidence import TaskEvidence
from evalkit.rerank.verifier.ranker import lever, result_clusters
from tests.evalkit.rerank.toy_evidence import evidence_of, evidences


@settings(max_examples=100, deadline=None)
@given(evidence=evidences(), data=st.data())
def test_the_order_is_that_of_a_slow_version(evidence: TaskEvidence, data: st.DataObject) -> None:
    count = len(evidence.programs)
    right = data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=count, max_size=count))
    sums: dict[object, float] = defaultdict(float)
    members: dict[object, set[int]] = defaultdict(set)
    for sample, program in enumerate(evidence.program_N.tolist()):
        returns = bool(evidence.is_value_PI[program].any())
        key = tuple(evidence.output_PI[program].tolist()) if returns else program
        sums[key] += right[program] / len(evidence.program_N)
        members[key].add(sample)
    by_score: dict[float, set[int]] = defaultdict(set)
    for key, score in sums.items():
        by_score[round(score, 9)] |= members[key]
    expected = [sorted(by_score[score]) for score in sorted(by_score, reverse=True)]
    ranking = lever(evidence, np.array(right), use_log_probs=False)
    assert [list(group) for group in ranking.groups] == expected


def test_many_doubtful_samples_with_equal_outputs_beat_a_single_good_one() -> None:
    evidence = evidence_of(outputs=[[0], [1], [1]], passed=[[]] * 3, samples=[0, 1, 1, 2])
    assert lever(evidence, np.array([0.9, 0.4, 0.4]), use_log_probs=False).groups[0] == (1, 2, 3)
    assert lever(evidence, np.array([0.9, 0.2, 0.2]), use_log_probs=False).groups[0] == (0,)


def test_programs_that_return_nothing_share_no_cluster() -> None:
    evidence = evidence_of(outputs=[[-1, -1], [-1, -1], [0, -1], [0, -1]], passed=[[]] * 4, samples=[0, 1, 2, 3])
    members = sorted(np.flatnonzero(member).tolist() for member in result_clusters(evidence).member_CP)
    assert members == [[0], [1], [2, 3]]


def test_without_inputs_each_program_is_its_own_cluster() -> None:
    evidence = evidence_of(outputs=[[], []], passed=[[], []], samples=[0, 1, 1])
    assert lever(evidence, np.array([0.9, 0.3]), use_log_probs=False).groups == ((0,), (1, 2))


def test_likelihoods_replace_frequencies_only_where_all_are_known() -> None:
    evidence = evidence_of(outputs=[[0], [1]], passed=[[], []], samples=[0, 1, 1])
    right = np.array([0.5, 0.5])
    known = dataclasses.replace(evidence, log_prob_N=np.array([-0.1, -3.0, -3.0]))
    assert lever(known, right, use_log_probs=True).groups[0] == (0,)
    assert lever(known, right, use_log_probs=False).groups[0] == (1, 2)
    partly = dataclasses.replace(evidence, log_prob_N=np.array([-0.1, np.nan, np.nan]))
    assert lever(partly, right, use_log_probs=True).groups[0] == (1, 2)
    assert lever(known, right, use_log_probs=True).scores[0] == pytest.approx(0.5 * np.exp(-0.1))
