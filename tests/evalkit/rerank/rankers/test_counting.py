"""Rankers that count samples and tests."""

from __future__ import annotations

from evalkit.rerank.rankers.counting import alphacode, majority, majority_valid, max_pass, random
from tests.evalkit.rerank.toy_evidence import evidence_of

EVIDENCE = evidence_of(
    outputs=[[-1, -1], [-1, -1], [3, 4], [3, 5]],
    passed=[[False, False], [False, False], [True, False], [True, True]],
    samples=[0, 1, 2, 3, 3, 0],
    times=[2, 1],
    examples=[[False], [False], [True], [True]],
)


def test_random_has_no_preference() -> None:
    assert random(EVIDENCE).groups == ()


def test_majority_takes_the_most_frequent_outputs_even_if_they_are_errors() -> None:
    assert majority(EVIDENCE).groups == ((0, 1, 5), (3, 4), (2,))


def test_the_validity_rule_puts_programs_that_always_fail_last() -> None:
    assert majority_valid(EVIDENCE).groups == ((3, 4), (2,), (0, 1, 5))


def test_max_pass_counts_a_test_as_often_as_it_was_written() -> None:
    assert max_pass(EVIDENCE).groups == ((3, 4), (2,), (0, 1, 5))
    assert max_pass(EVIDENCE).scores == (3.0, 2.0, 0.0)


def test_alphacode_drops_what_fails_an_example_and_keeps_all_if_everything_fails() -> None:
    assert alphacode(EVIDENCE).groups == ((3, 4), (2,))
    failing = evidence_of(outputs=[[1], [2]], passed=[[], []], samples=[0, 1, 1], examples=[[False], [False]])
    assert alphacode(failing).groups == ((1, 2), (0,))
