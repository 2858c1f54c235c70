"""SRank against a slow reference written from the authors' description."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
from hypothesis import given, settings

from evalkit.rerank.evidence import NONE_CODE, TaskEvidence
from evalkit.rerank.rankers.functional_overlap import srank, srank_all
from tests.evalkit.rerank.toy_evidence import evidence_of, evidences


def _slow_srank(evidence: TaskEvidence) -> tuple[tuple[int, ...], ...]:
    # As the authors hold an output: whether the call ran, and its value, which is None where it failed.
    outputs = [[(code >= 0, max(code, NONE_CODE)) for code in row] for row in evidence.output_PI.tolist()]
    valid = [p for p, row in enumerate(outputs) if len(row) == 1 or len({value for _, value in row}) > 1]
    clusters: dict[tuple[tuple[bool, int], ...], list[int]] = defaultdict(list)
    for program in valid:
        clusters[tuple(outputs[program])].append(program)
    pairs = [(t, test.times_written) for t, test in enumerate(evidence.tests) if test.names_value]

    def value(members: list[int]) -> float:
        passed = sum(times for t, times in pairs if evidence.passed_PT[members[0], t])
        return len(members) / len(valid) * (passed / sum(times for _, times in pairs) if pairs else 0.0)

    by_score: dict[float, list[int]] = defaultdict(list)
    for row, members in clusters.items():
        score = 0.0
        for other, others in clusters.items():
            equal = sum(a == b and a[0] for a, b in zip(row, other, strict=True)) / len(row)
            score += (1.0 if other == row else equal) * value(others)
        by_score[round(score, 9)] += members
    if len(valid) < len(outputs):
        by_score[0.0] += [p for p in range(len(outputs)) if p not in valid]
    samples = evidence.program_N.tolist()
    return tuple(
        tuple(n for n, program in enumerate(samples) if program in by_score[score])
        for score in sorted(by_score, reverse=True)
    )


@settings(max_examples=200, deadline=None)
@given(evidence=evidences())
def test_srank_equals_the_slow_reference(evidence: TaskEvidence) -> None:
    # A test's result follows from the output: programs with equal values pass the same tests, and a failed call none.
    first = {}
    for program, row in enumerate(map(tuple, np.maximum(evidence.output_PI, -1).tolist())):
        evidence.passed_PT[program] = evidence.passed_PT[first.setdefault(row, program)]
        for place, test in enumerate(evidence.tests):
            evidence.passed_PT[program, place] &= test.input is None or row[test.input] >= 0
    assert srank(evidence).groups == (_slow_srank(evidence) if evidence.inputs else ())


def test_votes_of_a_similar_cluster_count() -> None:
    """Clusters 0 and 1 agree on two of three inputs and outvote the single larger cluster."""
    evidence = evidence_of(
        outputs=[[1, 2, 3], [1, 2, 4], [7, 8, 9]],
        passed=[[True, False], [True, False], [False, True]],
        samples=[0, 0, 1, 1, 2, 2, 2],
    )
    assert set(srank(evidence).groups[0]) == {0, 1, 2, 3}


def test_without_the_validity_rule_failing_programs_are_ranked_by_their_votes() -> None:
    passed = [[True, False], [False, True]]
    evidence = evidence_of(outputs=[[-1, -1], [1, 2]], passed=passed, samples=[0, 0, 1], times=[2, 1])
    assert srank_all(evidence).groups[0] == (0, 1)
    assert srank(evidence).groups[0] == (2,)


def test_tests_that_name_no_value_do_not_count_as_pairs() -> None:
    passed = [[True, False], [False, True]]
    evidence = evidence_of(outputs=[[1, 2], [3, 4]], passed=passed, samples=[0, 1], times=[3, 1])
    assert srank(evidence).groups == ((0,), (1,))
    first, second = evidence.tests
    evidence = replace(evidence, tests=(replace(first, names_value=False), second))
    assert srank(evidence).groups == ((1,), (0,))


def test_where_no_pair_holds_programs_that_are_not_valid_are_as_good_as_the_others() -> None:
    evidence = evidence_of(outputs=[[1, 2], [3, 4], [-1, -1]], passed=[[False]] * 3, samples=[0, 1, 2])
    assert srank(evidence).groups == ((0, 1, 2),)
