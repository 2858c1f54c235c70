"""Tests of attempts: the end of refinement, and the choice of the answer."""

from __future__ import annotations

import itertools

from evalkit.samples.base import Sample
from evalkit.tools.refine.attempts import ENDS, Attempt, best_of, end_of, refined_sample, summary
from evalkit.tools.refine.visible import VisibleOutcome


def attempt(passed: int, program: str = "", *, tokens: int = 5) -> Attempt:
    sample = Sample(task_id="T/0", completion=program, tokens=tokens)
    return Attempt(sample=sample, program=program, outcome=VisibleOutcome(passed=passed, kind="wrong"))


def chain(*passed: int) -> list[Attempt]:
    return [attempt(number, f"x = {place}") for place, number in enumerate(passed)]


def test_ends_by_their_definitions():
    """Every chain of up to three attempts at two tests that are different programs."""
    for length in (1, 2, 3):
        for passed in itertools.product(range(3), repeat=length):
            end = end_of(chain(*passed), num_tests=2, refinements=2)
            assert (end == "passed") == (passed[-1] == 2)
            assert (end == "worse") == (length > 1 and passed[-1] < passed[-2])
            assert (end == "limit") == (length == 3 and end not in ("passed", "worse"))
    assert end_of(chain(0), num_tests=0, refinements=2) == "no examples"
    assert end_of(chain(0), num_tests=2, refinements=0) == "limit"


def test_a_program_is_repeated_whatever_its_layout():
    attempts = [attempt(1, "x = 1\n"), attempt(1, "x  =  1  # again\n")]
    assert end_of(attempts, num_tests=2, refinements=5) == "repeated"
    assert end_of([attempt(2, "x = 1\n")] * 2, num_tests=2, refinements=5) == "passed"


def test_independent_attempts_end_by_success_or_the_limit_alone():
    same, worse = [attempt(1, "x = 1\n")] * 2, chain(1, 0)
    assert {end_of(found, num_tests=2, refinements=5, independent=True) for found in (same, worse)} == {""}
    assert {end_of(found, num_tests=2, refinements=1, independent=True) for found in (same, worse)} == {"limit"}
    assert end_of(chain(0, 2), num_tests=2, refinements=5, independent=True) == "passed"


def test_the_answer_passes_most_and_is_the_first_of_equals():
    for passed in itertools.product(range(3), repeat=3):
        best = best_of(chain(*passed))
        assert passed[best] == max(passed)
        assert best == passed.index(max(passed))


def test_the_sample_records_all_attempts():
    sample = refined_sample(chain(0, 1), num_tests=2, end="limit", run="r")
    assert (sample.completion, sample.tokens, sample.run) == ("x = 1", 10, "r")
    assert sample.attempts is not None
    assert [record["is_answer"] for record in sample.attempts] == [False, True]
    counts = summary([sample, refined_sample(chain(2), num_tests=2, end="passed", run="r")])
    assert counts["samples"] == 2
    assert counts["attempts"] == {"1": 1, "2": 1}
    assert counts["answers"] == {"1": 1, "2": 1}
    assert {name: number for name, number in counts["ends"].items() if number} == {"passed": 1, "limit": 1}
    assert set(counts["ends"]) == set(ENDS)
    assert (counts["tokens"], counts["tokens_of_first_attempts"]) == (15, 10)
