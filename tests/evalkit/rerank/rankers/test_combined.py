"""Our ranker against a slow reference written from the formula in docs/selection.md."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from hypothesis import given, settings

from evalkit.rerank.evidence import NONE_CODE, TaskEvidence
from evalkit.rerank.rankers.combined import RULES, combined, combined_by
from tests.evalkit.rerank.toy_evidence import evidence_of, evidences


def _slow_combined(evidence: TaskEvidence) -> list[tuple[float, set[int]]]:
    outputs, samples = evidence.output_PI.tolist(), evidence.program_N.tolist()
    differs = [len(row) == 1 or len({max(code, NONE_CODE) for code in row}) > 1 for row in outputs]
    valid = [p for p, row in enumerate(outputs) if max(row) >= 0 and differs[p]]
    clusters: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for program in valid:
        clusters[tuple(outputs[program])].append(program)
    votes = {row: sum(sample in members for sample in samples) ** 0.5 for row, members in clusters.items()}
    weights = [
        test.times_written * sum(votes[row] for row, members in clusters.items() if evidence.passed_PT[members[0], t])
        for t, test in enumerate(evidence.tests)
    ]

    def value(row: tuple[int, ...]) -> float:
        if not sum(weights):
            return votes[row]
        passed = [weight for t, weight in enumerate(weights) if evidence.passed_PT[clusters[row][0], t]]
        return votes[row] * max(0.01, sum(passed) / sum(weights))

    ranked = []
    for row, members in clusters.items():
        score = value(row)
        for other in clusters:
            if other != row:
                score += sum(a == b >= 0 for a, b in zip(row, other, strict=True)) / len(row) * value(other)
        ranked.append((score * value(row) ** 0.5, {n for n, program in enumerate(samples) if program in members}))
    if len(valid) < len(outputs):
        ranked.append((-1.0, {n for n, program in enumerate(samples) if program not in valid}))
    return ranked


@settings(max_examples=200, deadline=None)
@given(evidence=evidences())
def test_combined_equals_the_slow_reference(evidence: TaskEvidence) -> None:
    first: dict[tuple[int, ...], int] = {}  # programs with equal outputs pass the same tests
    for program, row in enumerate(map(tuple, evidence.output_PI.tolist())):
        evidence.passed_PT[program] = evidence.passed_PT[first.setdefault(row, program)]
    if not evidence.inputs:
        assert combined(evidence).groups == ()
        return
    by_score: dict[float, set[int]] = defaultdict(set)
    for score, samples in _slow_combined(evidence):
        by_score[round(score, 9)] |= samples
    expected = [tuple(sorted(by_score[score])) for score in sorted(by_score, reverse=True)]
    assert list(combined(evidence).groups) == expected


def test_votes_of_a_similar_cluster_count() -> None:
    """Clusters 0 and 1 agree on two of three inputs and outvote the single larger cluster."""
    evidence = evidence_of(
        outputs=[[1, 2, 3], [1, 2, 4], [7, 8, 9]],
        passed=[[True, False], [True, False], [False, True]],
        samples=[0, 0, 1, 1, 2, 2, 2],
    )
    assert set(combined(evidence).groups[-1]) == {4, 5, 6}


def test_its_own_votes_count_more_than_shared_ones() -> None:
    """Clusters 0 and 1 share half of their votes; 2 has as many votes in all, and all of them are its own."""
    evidence = evidence_of(
        outputs=[[1, 2], [1, 3], [7, 8]], passed=[[True], [True], [True]], samples=[0] * 4 + [1] * 4 + [2] * 9
    )
    assert combined_by(evidence, replace(RULES, own_power=0.0)).groups == (tuple(range(17)),)
    assert combined(evidence).groups == (tuple(range(8, 17)), tuple(range(8)))


def test_a_test_that_no_cluster_passes_leaves_the_votes() -> None:
    evidence = evidence_of(outputs=[[1, 2], [1, 3]], passed=[[False], [False]], samples=[0, 0, 1])
    assert combined(evidence).groups == ((0, 1), (2,))
