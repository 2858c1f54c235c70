"""Restricted evidence equals the evidence of a run with fewer samples or texts of tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.selection.restrict import with_samples, with_tests
from evalkit.rerank.collect import EVIDENCE_LIMITS, collect
from evalkit.rerank.evidence import TaskEvidence
from evalkit.rerank.model_tests import count_tests
from evalkit.rerank.registry import RANKERS
from evalkit.rerank.store import EvidenceStore
from evalkit.rerank.task_plan import EvidenceSettings
from evalkit.samples.base import Sample
from evalkit.sandbox.pool import Pool
from evalkit.tasks.base import Problem
from tests.evalkit.rerank.test_run import Notes

PROBLEM = Problem(task_id="Toy/0", prompt="def f(x):\n", entry_points=("f",), prelude="", test="", reference="")
BODIES = ("return x + 1", "return 2", "return x + 1", "raise KeyError(x)", "return [x]", "return 2", "return x * 2")
TEXTS = (
    "f(1) == 2\nassert f(2) == 3",
    "f(1) == 2\nassert f(3) == f(4)",
    "any(x == 1 for x in f(1))\nassert f(5) == 10",
    "f(5) == 6\nassert not f(0)",
    "no test",
)


@pytest.fixture
def store() -> EvidenceStore:
    return EvidenceStore(None, limits=EVIDENCE_LIMITS, note=print)


def collected(pool: Pool, store: EvidenceStore, bodies: list[int], texts: list[int]) -> TaskEvidence:
    samples = [Sample(task_id="Toy/0", index=i, completion=f"    {BODIES[body]}\n") for i, body in enumerate(bodies)]
    tests = count_tests([TEXTS[text] for text in texts], ("f",))
    settings = EvidenceSettings(inputs=("tests",))
    with store:
        (evidence,) = collect(
            [PROBLEM], samples, {"Toy/0": tests}, settings=settings, pool=pool, store=store, callbacks=Notes()
        )
    return evidence


def same_rankings(first: TaskEvidence, second: TaskEvidence) -> bool:
    return all(ranker(first) == ranker(second) for ranker in RANKERS.values())


@pytest.mark.parametrize("chosen", [[0, 1, 2, 3, 4, 5, 6], [1, 3, 6], [4, 2, 0], [5]])
def test_fewer_samples(chosen: list[int], pool: Pool, store: EvidenceStore) -> None:
    restricted = with_samples(collected(pool, store, [*range(7)], [*range(5)]), chosen)
    expected = collected(pool, store, chosen, [*range(5)])
    assert restricted.programs == expected.programs
    assert restricted.program_N.tolist() == expected.program_N.tolist()
    assert restricted.passed_PT.tolist() == expected.passed_PT.tolist()
    assert same_rankings(restricted, expected)


@pytest.mark.parametrize("chosen", [[0, 1, 2, 3, 4], [1, 2], [3, 0], [4], [2, 2]])
def test_fewer_texts_of_tests(chosen: list[int], pool: Pool, store: EvidenceStore) -> None:
    times = {test.source: test.times_written for test in count_tests([TEXTS[text] for text in chosen], ("f",))}
    restricted = with_tests(collected(pool, store, [*range(7)], [*range(5)]), times, ("f",))
    expected = collected(pool, store, [*range(7)], chosen)
    assert set(restricted.inputs) == set(expected.inputs)
    by_source = {test.source: test for test in expected.tests}
    for place, test in enumerate(restricted.tests):
        other = by_source[test.source]
        assert replace(test, input=None) == replace(other, input=None)
        assert (test.input is None) == (other.input is None)
        if test.input is not None and other.input is not None:
            assert restricted.inputs[test.input] == expected.inputs[other.input]
        assert np.array_equal(restricted.passed_PT[:, place], expected.passed_PT[:, expected.tests.index(other)])
    assert same_rankings(restricted, expected)


def test_the_evidence_stays_as_it_is(pool: Pool, store: EvidenceStore) -> None:
    evidence = collected(pool, store, [0, 1, 2], [0, 1])
    before = evidence.passed_PT.copy(), evidence.program_N.copy()
    with_samples(evidence, [1])
    with_tests(evidence, {}, ("f",))
    assert np.array_equal(evidence.passed_PT, before[0])
    assert np.array_equal(evidence.program_N, before[1])
