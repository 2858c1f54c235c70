"""Tests of the prompts without visible tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from evalkit.tasks import codet_prompts, registry
from evalkit.tasks.base import Benchmark

UNCHANGED = ["HumanEval/38", "HumanEval/41", "HumanEval/50", "HumanEval/83"]
DEFINED_BY_VALUES = ["HumanEval/46", "HumanEval/63", "HumanEval/130"]
"""Problems in which lines such as `fib4(0) -> 0` define a sequence."""
SENTENCES = ["HumanEval/99"]
"""Problems in which a sentence explains a rule by a call."""


def test_examples_are_removed_from_all_humaneval_prompts_and_nothing_else(humaneval: Benchmark):
    for problem in humaneval.problems:
        text = codet_prompts.without_examples(problem)
        ast.parse(text + "    pass\n")
        assert (text == problem.prompt) == (problem.task_id in UNCHANGED)
        original = iter(problem.prompt.split("\n"))
        assert all(line in original for line in text.split("\n")), "lines stay word for word and in order"
        name = problem.entry_points[0]
        docstring = text[text.rindex(f"def {name}") :].partition("\n")[2]
        assert not re.search('>>>|➞|=> |the output should be "?[0-9]|Input:|Example 1', docstring), problem.task_id
        if problem.task_id not in [*DEFINED_BY_VALUES, *SENTENCES]:
            assert not re.search(rf"{name}\([^)]", docstring), problem.task_id


@pytest.mark.parametrize(
    ("number", "ending"),
    [
        (0, 'given threshold.\n    """\n'),
        (6, 'maximum two levels of nesting while ((())) has three.\n    """\n'),
        (46, 'Do not use recursion.\n    """\n'),
        (
            68,
            "is empty, return [].\n\n    Constraints:\n        * 1 <= nodes.length <= 10000\n"
            '        * 0 <= node.value\n    """\n',
        ),
        (105, '"Seven", "Eight", "Nine".\n    """\n'),
        (130, 'you have to a return a list of the \n    first n + 1 numbers of the Tribonacci sequence.\n    """\n'),
        (132, "at least one bracket in the subsequence is nested.\n    '''\n"),
        (153, '(its strength is -1).\n    """\n'),
    ],
)
def test_what_follows_and_precedes_examples_stays(humaneval: Benchmark, number: int, ending: str):
    assert codet_prompts.without_examples(humaneval.problems[number]).endswith(ending)


@pytest.mark.slow
def test_prompts_of_humaneval_plus_lose_the_same_lines(humaneval: Benchmark, shared_data: Path):
    plus = registry.load("humaneval+", data_dir=shared_data)
    for problem, other in zip(humaneval.problems, plus.problems, strict=True):
        if problem.task_id != "HumanEval/115":  # HumanEval+ moves its import
            assert codet_prompts.without_examples(problem).strip() == codet_prompts.without_examples(other).strip()


@pytest.mark.parametrize("name", ["mbpp", "mbpp-sanitized"])
def test_mbpp_tasks_become_a_signature_and_a_docstring(shared_data: Path, name: str):
    for problem in registry.load(name, data_dir=shared_data).problems:
        text = codet_prompts.signature_with_description(problem)
        function = ast.parse(text).body[-1]
        assert isinstance(function, ast.FunctionDef)
        assert function.name == codet_prompts.tested_name(problem)
        assert ast.get_docstring(function) == problem.description
        assert "assert" not in text.replace(problem.description, "")


def test_imports_of_the_reference_precede_the_signature(shared_data: Path):
    problem = next(p for p in registry.load("mbpp", data_dir=shared_data).problems if p.task_id == "Mbpp/7")
    assert codet_prompts.signature_with_description(problem) == (
        'import re\ndef find_char_long(text):\n    """\n    Write a function to find all words which are at least 4 '
        'characters long in a string by using regex.\n    """\n'
    )


def test_prompts_for_tests_end_in_an_assert(humaneval: Benchmark):
    stub = codet_prompts.without_examples(humaneval.problems[53])
    text = codet_prompts.begin_tests(stub, "add")
    assert text == stub + "    pass\n\n# check the correctness of add\nassert "
    assert stub in codet_prompts.ask_for_tests(stub, "add")
    assert codet_prompts.BEGUN_ANSWER.endswith("```python\nassert ")
