"""Examples in prompts: the forms of HumanEval, and their truth on the references."""

from __future__ import annotations

import pytest

from evalkit.rerank.inputs.examples import Example, prompt_examples
from evalkit.tasks.base import Benchmark, Problem


def problem(docstring: str) -> Problem:
    helper = 'def helper(x):\n    """ helper(1) == 2 """\n    return f(x)\n'
    prompt = f'import math\n\n{helper}\ndef f(x):\n    """{docstring}\n    """\n'
    return Problem(task_id="Toy/0", prompt=prompt, entry_points=("f",), prelude="", test="", reference="")


@pytest.mark.parametrize(
    ("docstring", "call", "value"),
    [
        (" Text.\n    >>> f(1)\n    2\n    >>> f(2)\n    3", "f(1)", "2"),
        (" >>> f([1, 2], 'a')  # text\n    [1,  'b']", "f([1, 2], 'a')", "[1, 'b']"),
        (" f(1) ==> 2", "f(1)", "2"),
        (" f(1)==>True", "f(1)", "True"),
        (" f(1) => true", "f(1)", "True"),
        (" f(1) -> [2, 3]", "f(1)", "[2, 3]"),
        (" f(1) \u279e 'a'", "f(1)", "'a'"),
        (" f(1) == (1, 2) because", "f(1)", "(1, 2)"),
        (" f(1) = -1", "f(1)", "-1"),
        (" f('a') returns 'b'", "f('a')", "'b'"),
        (" f(1) should return 16.", "f(1)", "16.0"),
        (" f(1)   # returns 'x'", "f(1)", "'x'"),
        (" f(1) # => 'No' (text)", "f(1)", "'No'"),
        (" f(3) ->19 - 5 - 6 = 8", "f(3)", "8"),
        (" f(3) == 1 + 9 + 0 = 10", "f(3)", "10"),
        (" >>> f([])\n    >>> f(2)\n    3", "f([])", "None"),
        (" f([\n      [1],\n      [2]\n    ], 1) == 5", "f([[1], [2]], 1)", "5"),
        (" >>> round(f(2), 1)\n    0.5", "f(2)", ""),
        (" f(')', 1) == '('", "f(')', 1)", "'('"),
        (" For example f(12) is large", "f(12)", ""),
    ],
)
def test_a_form_of_example_is_read(docstring: str, call: str, value: str) -> None:
    assert prompt_examples(problem(docstring))[0] == Example(call, value)


@pytest.mark.parametrize(
    "docstring", [" f(x) == 2", " Write f() that returns 2.", " f(1", " self.f(1) == 2", " xf(1) == 2", ""]
)
def test_text_without_literal_arguments_is_no_example(docstring: str) -> None:
    assert prompt_examples(problem(docstring)) == ()


def test_a_prompt_that_is_no_module_has_no_examples() -> None:
    broken = Problem(task_id="a", prompt="def f(:", entry_points=("f",), prelude="", test="", reference="")
    assert prompt_examples(broken) == ()


def test_examples_of_humaneval_hold_for_the_references(humaneval: Benchmark) -> None:
    """The release itself holds wrong examples; the others that fail are compared with a tolerance there."""
    num_examples, failed = 0, set()
    for item in humaneval.problems:
        examples = [example for example in prompt_examples(item) if example.value]
        num_examples += len(examples)
        names: dict[str, object] = {}
        exec(item.reference, names)
        for example in examples:
            try:
                exec(example.test, names)
            except Exception:
                failed.add(item.task_id)
    assert num_examples >= 400
    assert len(failed) <= 8, failed
    assert sum(bool(prompt_examples(item)) for item in humaneval.problems) >= 140
