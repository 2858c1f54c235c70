"""Tests of visible tests: which of them a protocol shows, and what programs do on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from evalkit.sandbox.pool import Pool
from evalkit.tasks import protocols, registry
from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.prompts import shown_text
from evalkit.tools.refine.visible import VisibleChecker, VisibleOutcome, visible_tests

PROBLEM = Problem(
    task_id="T/0",
    prompt='def f(x):\n    """Double.\n\n    >>> f(2)\n    4\n    >>> f([1])\n    [1, 1]\n    """\n',
    entry_points=("f",),
    prelude="",
    test="assert f(77) == 154",
    reference="def f(x):\n    return 2 * x\n",
)


def outcome(program: str, pool: Pool, problem: Problem = PROBLEM) -> VisibleOutcome:
    with VisibleChecker(pool) as checker:
        return checker.submit(program, visible_tests(problem, problem.prompt)).result()


def sources(protocol: str, benchmark: Benchmark) -> dict[str, list[str]]:
    chosen = protocols.find(protocol, task=benchmark.name)
    return {
        problem.task_id: [test.source for test in visible_tests(problem, shown_text(chosen, problem, benchmark))]
        for problem in protocols.covered_problems(chosen, benchmark)
    }


def test_only_what_the_prompt_shows_is_visible(humaneval: Benchmark):
    shown = sources("humaneval-evalplus-chat-v1", humaneval)
    assert shown["HumanEval/2"] == ["assert truncate_number(3.5) == 0.5"]
    assert sum(map(bool, shown.values())) == 140
    assert not any(sources("humaneval-codet-chat-v1", humaneval).values())


def test_asserts_of_mbpp_are_visible_where_the_protocol_shows_them(shared_data: Path):
    mbpp = registry.load("mbpp", data_dir=shared_data)
    shown = sources("mbpp-3shot-v1", mbpp)
    assert shown["Mbpp/11"][0] == "assert remove_Occ('hello', 'l') == 'heo'"
    assert {len(tests) for tests in shown.values()} <= {1, 2, 3}
    assert not any(sources("mbpp-codet-chat-v1", mbpp).values())


def test_the_assert_in_a_prompt_of_mbpp_plus_is_visible(shared_data: Path):
    shown = sources("mbpp-evalplus-chat-v1", registry.load("mbpp+", data_dir=shared_data))
    assert sum(len(tests) == 1 for tests in shown.values()) == 377


def test_neither_scoring_tests_nor_reference_are_read(humaneval: Benchmark):
    protocol = protocols.find("humaneval-openai-v1", task="humaneval")
    for problem in humaneval.problems:
        blank = dataclasses.replace(problem, test="", prelude="", reference="", inputs=None)
        shown = shown_text(protocol, problem, humaneval)
        assert visible_tests(blank, shown) == visible_tests(problem, shown)


@pytest.mark.parametrize(
    ("program", "passed", "kind", "failure"),
    [
        ("def f(x):\n    return 2 * x\n", 2, "pass", ""),
        (
            "def f(x):\n    return x + x[:1]\n",
            1,
            "TypeError",
            "f(2) raises TypeError: 'int' object is not subscriptable.",
        ),
        ("def f(x):\n    return 3\n", 0, "wrong", "This test fails:\nassert f(2) == 4\nf(2) returns 3."),
        ("def f(x):\n    return 4\n", 1, "wrong", "f([1]) returns 4."),
        ("def f(x)\n    return 3\n", 0, "SyntaxError", "expected ':', in this line:\ndef f(x)"),
        ("def g(x):\n    return 3\n", 0, "NameError", "f(2) raises NameError: name 'f' is not defined."),
        ("import math\nmath.sqrt(-1)\n", 0, "ValueError", "The program raises ValueError: math domain error."),
        pytest.param(
            "def f(x):\n    while True:\n        pass\n",
            0,
            "timeout_cpu",
            "f(2) did not end in time.",
            marks=pytest.mark.slow,
        ),
        ("def f(x):\n    return [x] * 10**12\n", 0, "oom", "f(2) used too much memory."),
        ("import os\n\ndef f(x):\n    os.abort()\n", 0, "killed", "f(2) crashed the interpreter."),
        ("import os\n\ndef f(x):\n    os.fork()\n", 0, "sandbox_denied", "f(2) did what is not allowed here."),
        ("def f(x):\n    return iter([x])\n", 0, "wrong", "f(2) returns <list_iterator object>."),
        ("def f(x):\n    return 'ab' * 900\n", 0, "wrong", "abababab"),
    ],
)
def test_the_first_failure_is_told(pool: Pool, program: str, passed: int, kind: str, failure: str):
    result = outcome(program, pool)
    assert (result.passed, result.kind) == (passed, kind)
    assert failure in result.failure
    assert len(result.failure) < 500


def test_an_object_that_equals_everything_gains_nothing(pool: Pool):
    program = "class Any(int):\n    def __eq__(self, other):\n        return True\n\ndef f(x):\n    return Any(5)\n"
    assert outcome(program, pool).passed == 0


def test_an_assert_that_is_no_comparison_with_a_literal_runs_beside_the_program(pool: Pool):
    prompt = '"""\nWrite a function f.\nassert set(f(2)) == set([2, 3])\n"""\n'
    problem = dataclasses.replace(PROBLEM, prompt=prompt)
    assert outcome("def f(x):\n    return [3, 2]\n", pool, problem).kind == "pass"
    failed = outcome("def f(x):\n    return [3]\n", pool, problem)
    assert failed == VisibleOutcome(passed=0, kind="wrong", failure="This test fails:\nassert set(f(2)) == set([2, 3])")
    raised = outcome("def f(x):\n    return y\n", pool, problem)
    assert raised.failure.endswith("\nIt raises NameError: name 'y' is not defined.")
