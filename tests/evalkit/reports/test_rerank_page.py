"""What the page shows of one problem: clusters by size, marks of tests, choices, and limits."""

from __future__ import annotations

from dataclasses import replace

from evalkit.reports.rerank_page import SHOWN_CLUSTERS, SHOWN_INPUTS, SHOWN_TESTS, view_of
from evalkit.rerank.evidence import TaskEvidence
from evalkit.rerank.registry import RANKERS
from evalkit.sandbox.verdict import Verdict
from evalkit.scoring.ranked_problems import RankedProblem
from evalkit.tasks.base import Problem
from tests.evalkit.rerank.toy_evidence import evidence_of


def ranked(evidence: TaskEvidence, passed: list[bool], *methods: str) -> RankedProblem:
    problem = Problem(task_id="toy/0", prompt="p", entry_points=("f",), prelude="", test="", reference="")
    return RankedProblem(
        problem=problem,
        evidence=with_texts(evidence),
        rankings={name: RANKERS[name](evidence) for name in methods},
        verdicts=tuple(Verdict(outcome="pass" if mark else "wrong") for mark in passed),
    )


def with_texts(evidence: TaskEvidence) -> TaskEvidence:
    return replace(evidence, texts=tuple(tuple(str(code) for code in row) for row in evidence.output_PI.tolist()))


def test_clusters_are_named_by_size_with_their_choices_and_marks() -> None:
    evidence = evidence_of(
        outputs=[[0, 1], [2, 3], [2, 3]],
        passed=[[True, True], [False, False], [True, False]],
        samples=[0, 1, 1, 2],
        times=[1, 5],
    )
    view = view_of(ranked(evidence, [True, False, False, False], "random", "majority", "max-pass"))
    assert view.choices == (("random", "B", True, 0.25), ("majority", "A", False, 0.0), ("max-pass", "B", True, 1.0))
    assert view.differs == 2
    assert view.tests == (("assert f(1) == 1", 5), ("assert f(0) == 0", 1))
    first, second = view.clusters
    assert (first.name, first.num_samples, first.num_programs, first.num_right) == ("A", 3, 2, 0)
    assert (first.tests_passed, first.marks, first.outputs) == ("0 to 1", ("none", "some"), ("2", "3"))
    assert (second.chosen_by, second.marks, second.num_right) == (("random", "max-pass"), ("all", "all"), 1)


def test_of_many_only_the_first_are_shown_and_the_chosen_one() -> None:
    outputs = [[program] * 30 for program in range(40)]
    passed = [[program == 39] * 30 for program in range(40)]
    view = view_of(ranked(evidence_of(outputs=outputs, passed=passed, samples=list(range(40))), [False] * 40, "codet"))
    assert (len(view.clusters), view.num_clusters) == (SHOWN_CLUSTERS + 1, 40)
    assert view.clusters[-1].name == "N1"
    assert (len(view.inputs), view.num_inputs, len(view.tests)) == (SHOWN_INPUTS, 30, SHOWN_TESTS)


def test_without_inputs_and_tests_there_is_one_cluster() -> None:
    view = view_of(ranked(evidence_of(outputs=[[], []], passed=[[], []], samples=[0, 1]), [True, False], "random"))
    assert (view.num_clusters, view.tests, view.inputs, view.differs) == (1, (), (), 0)
