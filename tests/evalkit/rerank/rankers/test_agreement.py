"""CodeT, B4 and ACES against slow references written from the authors' descriptions."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings

from evalkit.rerank.evidence import TaskEvidence
from evalkit.rerank.rankers.agreement import B4_ALPHA_XY, B4_BETA_0, aces, aces_weights, b4, codet
from tests.evalkit.rerank.toy_evidence import evidence_of, evidences


@settings(max_examples=200, deadline=None)
@given(evidence=evidences())
def test_codet_equals_groups_of_samples_and_tests_counted_one_by_one(evidence: TaskEvidence) -> None:
    copies = [(number, copy) for number, test in enumerate(evidence.tests) for copy in range(test.times_written)]
    groups: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for sample, program in enumerate(evidence.program_N.tolist()):
        groups[tuple(test for test in copies if evidence.passed_PT[program, test[0]])].append(sample)
    groups.pop((), None)
    by_score: dict[float, list[int]] = defaultdict(list)
    for tests, samples in groups.items():
        by_score[round(math.sqrt(len(samples)) * len(tests), 9)] += samples
    expected = tuple(tuple(sorted(by_score[score])) for score in sorted(by_score, reverse=True))
    assert codet(evidence).groups == expected


def _beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


@settings(max_examples=100, deadline=None)
@given(evidence=evidences())
def test_b4_equals_its_posterior_counted_entry_by_entry(evidence: TaskEvidence) -> None:
    passed = evidence.passed_PT.tolist()
    if not evidence.tests:
        assert b4(evidence).groups == ()
        return
    scores = {}
    for row in {tuple(row) for row in passed}:
        inside = [i for i, other in enumerate(passed) if tuple(other) == row]
        outside = [other for i, other in enumerate(passed) if i not in inside]
        on = [other[t] for other in outside for t in range(len(row)) if row[t]]
        off = [other[t] for other in outside for t in range(len(row)) if not row[t]]
        score = _beta(sum(row) + B4_ALPHA_XY, len(row) - sum(row) + 1)
        score += _beta(len(inside) + B4_ALPHA_XY, len(outside) + 1)
        score += _beta(sum(on) + 1, len(on) - sum(on) + 1) + _beta(sum(off) + 1, len(off) - sum(off) + B4_BETA_0)
        scores[row] = score
    best = max(scores.values())
    first = {
        i
        for row, score in scores.items()
        if score > best - 1e-6
        for i, other in enumerate(passed)
        if tuple(other) == row
    }
    ranked = set(evidence.program_N[list(b4(evidence).groups[0])].tolist())
    assert ranked <= first


@settings(max_examples=100, deadline=None)
@given(evidence=evidences())
def test_aces_weights_equal_pairwise_comparisons(evidence: TaskEvidence) -> None:
    passed, times = evidence.passed_PT[evidence.program_N], evidence.times_T
    expected = []
    for test in range(len(times)):
        votes = [sum(times[t] for t in range(len(times)) if t != test and row[t]) for row in passed]
        yes = [v for v, row in zip(votes, passed, strict=True) if row[test]]
        no = [v for v, row in zip(votes, passed, strict=True) if not row[test]]
        auc = np.mean([(a > b) + 0.5 * (a == b) for a in yes for b in no]) if yes and no else 0.5
        share = len(yes) / len(votes)
        expected.append(max(0.0, auc - 0.5) * share * (1 - share) * times[test])
    assert aces_weights(evidence).tolist() == pytest.approx(expected)


def test_aces_follows_tests_that_agree_and_ignores_one_that_contradicts_them() -> None:
    evidence = evidence_of(
        outputs=[[0], [0], [1], [1]],
        passed=[
            [True, True, True, False],
            [True, True, True, False],
            [False, False, False, True],
            [False] * 3 + [True],
        ],
        samples=[0, 1, 2, 3],
    )
    assert aces_weights(evidence)[3] == 0
    assert aces(evidence).groups[0] == (0, 1)
