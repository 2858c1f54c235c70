"""Tests of the figures of refinement, on records whose figures are counted by hand."""

from __future__ import annotations

import pytest

from benchmarks.tools.refinement import (
    Candidate,
    ProblemRecord,
    at_tokens,
    first_passing,
    kinds,
    majority,
    random_sample,
    refined,
    tables,
)


def candidate(right: bool, visible: int, tokens: int = 10, kind: str = "") -> Candidate:
    return Candidate(right=right, visible=visible, tokens=tokens, kind=kind)


RECORDS = [
    ProblemRecord(  # mended in the second attempt
        task_id="T/0",
        num_tests=2,
        attempts={"failure": (candidate(False, 0, kind="NameError"), candidate(False, 0), candidate(True, 2))},
        ends={"failure": "passed"},
        samples=(candidate(False, 0), candidate(True, 2), candidate(True, 2)),
        majority={2: 0, 3: 1},
    ),
    ProblemRecord(  # right, but not on the visible tests: broken
        task_id="T/1",
        num_tests=2,
        attempts={"failure": (candidate(True, 1, kind="wrong"), candidate(False, 2))},
        ends={"failure": "passed"},
        samples=(candidate(True, 2), candidate(False, 1), candidate(False, 1)),
        majority={2: 0, 3: 1},
    ),
    ProblemRecord(  # without visible tests: neither refined nor drawn again
        task_id="T/2",
        num_tests=0,
        attempts={"failure": (candidate(False, 0),)},
        ends={"failure": "no examples"},
        samples=(candidate(True, 0), candidate(True, 0), candidate(False, 0)),
        majority={2: 0, 3: 0},
    ),
]


def test_methods_answer_and_cost_what_is_counted_by_hand():
    assert (refined(RECORDS, 0, form="failure").right, refined(RECORDS, 0, form="failure").tokens) == (
        (0, 1, 0),
        (10, 10, 10),
    )
    assert (refined(RECORDS, 1, form="failure").right, refined(RECORDS, 1, form="failure").tokens) == (
        (0, 0, 0),
        (20, 20, 10),
    )
    assert (refined(RECORDS, 2, form="failure").right, refined(RECORDS, 2, form="failure").tokens) == (
        (1, 0, 0),
        (30, 20, 10),
    )
    best = first_passing(RECORDS, 3, greedy=False)
    assert (best.right, best.tokens) == ((1, 1, 1), (20, 10, 10))
    retry = first_passing(RECORDS, 2, greedy=True)
    assert (retry.right, retry.tokens) == ((0, 1, 0), (20, 20, 10))
    assert random_sample(RECORDS).right == pytest.approx((2 / 3, 1 / 3, 2 / 3))
    assert (majority(RECORDS, 3).right, majority(RECORDS, 3).tokens) == ((1, 0, 1), (30, 30, 30))


def test_a_mixture_has_the_tokens_that_are_asked_for():
    curve = [first_passing(RECORDS, size, greedy=True) for size in (1, 2, 3)]
    totals = [method.total_tokens for method in curve]
    for total in (totals[0], (totals[0] + totals[1]) / 2, totals[2] - 1):
        mixture = at_tokens(curve, total)
        assert mixture is not None
        assert mixture.total_tokens == pytest.approx(total)
        assert all(0 <= value <= 1 for value in mixture.right)
    assert at_tokens(curve, totals[2] + 1) is None


def test_kinds_count_what_was_mended_and_broken():
    assert kinds(RECORDS, form="failure") == {
        "NameError": {"answers": 1, "pass visible tests": 1, "mended": 1, "broken": 0, "right before": 0},
        "wrong": {"answers": 1, "pass visible tests": 1, "mended": 0, "broken": 1, "right before": 1},
    }


def test_tables_hold_all_methods():
    figures = tables(RECORDS)
    assert figures["problems"] == 3
    assert figures["with_visible_tests"] == 2
    assert figures["forms"]["failure"]["ends"] == {"passed": 2, "no examples": 1}
    assert figures["methods"]["greedy"]["pass@1"]["mean"] == pytest.approx(33.3)
    assert figures["methods"]["refine 2, failure"]["tokens"] == 20
    assert figures["forms"]["failure"]["oracle_of_attempts"]["mean"] == pytest.approx(66.7)
    assert set(figures["equal_tokens"]) >= {
        "refine 1, failure less random sample",
        "refine 2, failure less greedy, then samples",
    }
