"""Prompts without visible tests, for solutions and for tests, in the forms of CodeT.

The forms follow the data of the authors (microsoft/CodeT, `data/dataset`; arXiv 2207.10397): HumanEval's prompts
without their examples, and MBPP's tasks as a signature and a docstring. A prompt for tests adds an empty body, a
comment and `assert `. A prompt for inputs is ours: it adds the beginning of a function that returns them.
"""

from __future__ import annotations

import ast
import re
import warnings

from evalkit.errors import EvalError
from evalkit.tasks.base import Problem

_HEADER = re.compile(
    r"\s*((for )?exam[pb]les?( \d+)?|\[input/output\] samples|it must be implemented like this)\s*:?\s*", re.IGNORECASE
)
"""A line that introduces examples."""
_AFTER_EXAMPLES = re.compile(
    r"\s*(Notes?:|Constrain(ts)?:|Variables:|You are given a|The function will receive|If the input list is empty|"
    r"It is assumed that)"
)
"""Beginning of a line of a HumanEval docstring that follows examples and belongs to the description."""
_QUOTES = ('"""', "'''")


def without_examples(problem: Problem) -> str:
    """Return a HumanEval prompt without the example inputs and outputs of its last docstring.

    All other lines stay word for word. Sentences that explain a term by an example stay, too, as do the first values
    of a sequence that is defined by a recurrence.
    """
    lines = problem.prompt.rstrip().split("\n")
    closing = lines[-1]
    opening = max(
        (number for number, line in enumerate(lines[:-1]) if line.lstrip().startswith(_QUOTES)), default=len(lines)
    )
    body = lines[opening:-1]
    kept = _kept(body, problem.entry_points[0])
    if len(kept) == len(body):
        return problem.prompt
    while kept and not kept[-1].strip():
        kept.pop()
    return "\n".join([*lines[:opening], *kept, closing]) + "\n"


def _kept(lines: list[str], name: str) -> list[str]:
    """Return the lines of a docstring that are not examples."""
    call = re.compile(rf"\s*{re.escape(name)}\(.*\)\s*(==|=|=>|==>|->|➞)")
    has_marks = any(_HEADER.fullmatch(line) or line.lstrip().startswith(">>>") for line in lines)
    kept: list[str] = []
    inside = False
    for line in lines:
        if _HEADER.fullmatch(line) or line.lstrip().startswith(">>>") or (not has_marks and call.match(line)):
            inside = True
        elif _AFTER_EXAMPLES.match(line):
            inside = False
        if not inside:
            kept.append(line)
    return kept


def signature_with_description(problem: Problem) -> str:
    """Return the beginning of a program for an MBPP task: imports, signature, and the task as a docstring.

    Imports and signature are those of the reference, as in CodeT. No test is shown.
    """
    function = _function_under_test(problem)
    imports = [node for node in _parse(problem.reference).body if isinstance(node, ast.Import | ast.ImportFrom)]
    header = "".join(f"{ast.unparse(node)}\n" for node in imports)
    return f'{header}def {function.name}({ast.unparse(function.args)}):\n    """\n    {problem.description}\n    """\n'


def _function_under_test(problem: Problem) -> ast.FunctionDef:
    """Return the function of the reference that the tests call."""
    for node in _parse(problem.reference).body:
        if isinstance(node, ast.FunctionDef) and node.name in problem.entry_points:
            return node
    raise EvalError(
        f"{problem.task_id}: its reference defines no function that the tests call; choose another protocol"
    )


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # regular expressions of the release hold invalid escapes
        return ast.parse(source)


def begin_tests(stub: str, name: str) -> str:
    """Return the prompt that a base model continues with tests.

    Args:
        stub: Signature and docstring of a function.
        name: The function.
    """
    return f"{stub}    pass\n\n# check the correctness of {name}\nassert "


def ask_for_tests(stub: str, name: str) -> str:
    """Return the message that asks a chat model for tests; see `begin_tests`."""
    return (
        f"Please write ten different assert statements that test the following function in a markdown code block. Each "
        f"calls {name} with literal arguments and compares the result with a literal:\n```python\n{stub}    pass\n```"
    )


BEGUN_ANSWER = "Below are ten assert statements that test the function:\n```python\nassert "
"""Beginning of a chat model's answer."""


BEGUN_GENERATOR = "import random\n\n\ndef generate_inputs():\n"
"""Beginning of a program that returns inputs: a list with a tuple of arguments for each."""


def begin_inputs(stub: str, name: str) -> str:
    """Return the prompt that a base model continues with the body of a generator; see `begin_tests`."""
    return (
        f"{stub}    pass\n\n\n# twenty different inputs of {name}: a list of tuples of its arguments\n{BEGUN_GENERATOR}"
    )


def ask_for_inputs(stub: str, name: str) -> str:
    """Return the message that asks a chat model for a generator; see `begin_tests`."""
    return (
        "Please write a Python function generate_inputs() without arguments in a markdown code block. It returns "
        f"twenty different inputs of {name}, small, large and unusual ones, as a list of tuples of its arguments:\n"
        f"```python\n{stub}    pass\n```"
    )


BEGUN_GENERATOR_ANSWER = f"Below is the function that returns inputs:\n```python\n{BEGUN_GENERATOR}"
"""Beginning of a chat model's answer."""


def tested_name(problem: Problem) -> str:
    """Return the name of the function under test."""
    return problem.entry_points[0] if problem.prompt else _function_under_test(problem).name
