"""SRank against a slow reference written from the authors' description."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings

from evalkit.rerank.evidence import TaskEvidence
from evalkit.rerank.rankers.functional_overlap import srank, srank_all
from tests.evalkit.rerank.toy_evidence import evidence_of, evidences


def _slow_srank(evidence: TaskEvidence) -> tuple[tuple[int, ...], ...]:
    outputs = evidence.output_PI.tolist()
    valid = [p for p, row in enumerate(outputs) if max(row) >= 0 and (len(row) == 1 or len(set(row)) > 1)]
    clusters: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for program in valid:
        clusters[tuple(outputs[program])].append(program)
    pairs = [(t, test.times_written) for t, test in enumerate(evidence.tests) if test.input is not None]

    def value(members: list[int]) -> float:
        passed = sum(times for t, times in pairs if evidence.passed_PT[members[0], t])
        return len(members) / len(valid) * (passed / sum(times for _, times in pairs) if pairs else 0.0)

    by_score: dict[float, list[int]] = defaultdict(list)
    for row, members in clusters.items():
        score = 0.0
        for other, others in clusters.items():
            equal = sum(a == b and a >= 0 for a, b in zip(row, other, strict=True)) / len(row)
            score += (1.0 if other == row else equal) * value(others)
        by_score[round(score, 9)] += members
    if len(valid) < len(outputs):
        by_score[-1.0] += [p for p in range(len(outputs)) if p not in valid]
    samples = evidence.program_N.tolist()
    return tuple(
        tuple(n for n, program in enumerate(samples) if program in by_score[score])
        for score in sorted(by_score, reverse=True)
    )


@settings(max_examples=200, deadline=None)
@given(evidence=evidences())
def test_srank_equals_the_slow_reference(evidence: TaskEvidence) -> None:
    # A test's result follows from the output: programs with equal outputs pass the same tests.
    first = {}
    for program, row in enumerate(map(tuple, evidence.output_PI.tolist())):
        evidence.passed_PT[program] = evidence.passed_PT[first.setdefault(row, program)]
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
    evidence = evidence_of(outputs=[[-1, -1], [1, 2]], passed=[[True], [False]], samples=[0, 0, 1])
    assert srank_all(evidence).groups[0] == (0, 1)
    assert srank(evidence).groups[0] == (2,)
