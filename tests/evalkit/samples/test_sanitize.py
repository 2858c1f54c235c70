"""Tests of the sanitizer: it finds the program in a chat model's answer and drops the rest."""

from __future__ import annotations

import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.samples.sanitize import _lines, _longest_code, _parse, sanitize
from evalkit.tasks.registry import load


def run(code: str) -> dict:
    names: dict = {}
    exec(compile(code, "answer", "exec"), names)
    return names


CASES = {
    "plain": "def f(x):\n    return x + 1\n",
    "prints and asserts after it": "def f(x):\n    return x + 1\n\nprint(f(1))\nassert f(1) == 3\n",
    "words before and after": "Here is the function:\n\ndef f(x):\n    return x + 1\n\nThis adds one to x, isn't it?\n",
    "a fence left open": "```python\ndef f(x):\n    return x + 1\n```\nExplanation: it's simple.",
    "a helper, a constant and an import": (
        "import math\nSTEP = math.floor(1.5)\nUNUSED = 1 / 0\n\n"
        "def helper(x):\n    return x + STEP\n\ndef f(x):\n    return helper(x)\n\nraise SystemExit(1)\n"
    ),
    "a decorator": (
        "from functools import lru_cache\n\n@lru_cache(maxsize=None)\ndef f(x):\n    return x + 1\n\nf('no number')\n"
    ),
    "a class that is needed": (
        "class Adder:\n    def add(self, x):\n        return x + 1\n\ndef f(x):\n    return Adder().add(x)\n"
    ),
    "a main block": 'def f(x):\n    return x + 1\n\nif __name__ == "__main__":\n    f(input())\n',
    "a name that is changed later": "table = {}\ntable[1] = 1\n\ndef f(x):\n    return x + table[1]\n",
    "an assigned function": "f = lambda x: x + 1\nprint(f(None))\n",
    "cut short": "def f(x):\n    return x + 1\n\ndef test():\n    assert f(1 ==",
    "functions that need each other": (
        "def g(x):\n    return x if x else f(x)\n\ndef f(x):\n    return x + 1 if x else g(1)\n\nf('a')\n"
    ),
}


@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
def test_the_program_is_found_and_runs_without_what_surrounds_it(text: str):
    code = sanitize(text, ("f",))
    assert run(code)["f"](1) == 2
    assert sanitize(code, ("f",)) == code  # a program is its own


def test_what_the_entry_point_does_not_need_is_left_out():
    code = sanitize(CASES["a helper, a constant and an import"], ("f",))
    assert "UNUSED" not in code
    assert "SystemExit" not in code
    assert code.startswith("import math\n")


@pytest.mark.parametrize("text", ["", "I cannot help with that.", "def g(x):\n    return x\n", "\0", "(" * 5000])
def test_an_answer_without_the_function_is_left_as_it_is(text: str):
    assert sanitize(text, ("f",)) == text


@given(st.text(max_size=80))
def test_no_text_breaks_it(text: str):
    assert isinstance(sanitize(text, ("f",)), str)
    assert "def f(" in sanitize("def f(x):\n    return 1\n\n" + text, ("f",)) or "f" in text


@pytest.mark.slow
def test_all_references_pass_through_it_unharmed(humaneval, pool):
    answers = [
        problem.job(sanitize(problem.reference + "\nprint('done')\n", problem.entry_points))
        for problem in humaneval.problems
    ]
    assert all(verdict.passed for _, verdict in pool.check_all(answers))


TREE = """\
class Node:
    def __init__(self, data):
        self.data, self.left = data, None


def depth(node):
    return 1 + depth(node.left) if node else 0


def is_deep(root):
    return depth(root) > 2
"""
"""A program of which the checks use two names, one for the objects that they pass."""


def test_what_any_entry_point_needs_is_kept():
    code = sanitize(f"Sure:\n```python\n{TREE}\nprint(is_deep(None))\n```\n", ("Node", "is_deep"))
    names = run(code)
    assert names["is_deep"](names["Node"](1)) is False
    assert "print" not in code
    assert "class" not in sanitize(TREE, ("depth",))
    assert sanitize(TREE, ("Leaf", "is_deep")) == sanitize(TREE, ("is_deep",))
    assert sanitize(TREE, ("Leaf",)) == TREE


@pytest.mark.slow
def test_references_that_define_a_class_pass_through_it_unharmed(shared_data, pool):
    problems = [problem for problem in load("mbpp", data_dir=shared_data).problems if len(problem.entry_points) > 1]
    assert [problem.task_id for problem in problems] == ["Mbpp/367", "Mbpp/601", "Mbpp/927"]
    jobs = [
        problem.job(sanitize(f"{problem.reference}\nraise SystemExit\n", problem.entry_points)) for problem in problems
    ]
    assert all(verdict.passed for _, verdict in pool.check_all(jobs))


SEPARATORS = ["\u2028", "\u2029", "\x0c", "\x0b", "\x1c", "\x1d", "\x1e", "\x85"]


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=ascii)
def test_lines_end_where_python_ends_them(separator: str, end: str):
    lines = [
        f"SEP = 'a{separator}b'",
        "def f(x):",
        f"    '''{separator}'''",
        "    return len(SEP) and x + 1",
        "print(f(1))",
    ]
    code = sanitize(end.join(lines), ("f",))
    assert run(code)["f"](1) == 2
    assert len(run(code)["SEP"]) == 3
    assert "print" not in code


PIECES = [
    "def f(x):", "    return x", "    if x:", "        y = (1,", "             2)", "    '''doc", "it's", "    '''",
    "'''", "Here is the code:", "```python", "```", "import os", "x = [", "]", "else:", "    else:", "try:",
    "except E:", "    pass", "@deco", "    @deco", "class A:", "    def m(self):", "    try:", "        return {",
    "        }", "print(f(1))", "", "# comment", "x = 1 \\", "\treturn 2", "- item", "1. item", "(see", 'x = """a',
    "f'{x", "async def g():", "match x:", "    case 1:", "  bad", "x: int", "return", "\x0c", "a\u2028b", "if a and \\",
]  # fmt: skip


def longest(text: str) -> int:
    """Parse every range of lines, as EvalPlus does; return the number of non-blank lines of the longest valid one."""
    lines = _lines(text if _parse(text) is not None else text.expandtabs(4))
    starts = [start for start, line in enumerate(lines) if line.strip() and not line[0].isspace()]
    whole = [range(len(lines))] if _parse("\n".join(lines)) is not None else []
    spans = [range(start, end) for start in starts for end in range(start + 1, len(lines) + 1)]
    valid = whole or [span for span in spans if _parse("\n".join(lines[span.start : span.stop])) is not None]
    return max((sum(bool(lines[line].strip()) for line in span) for span in valid), default=0)


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("\n".join))
@settings(max_examples=500, deadline=None)
def test_the_longest_valid_range_is_found(text: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree, lines = _longest_code(text)
        assert sum(bool(line.strip()) for line in lines) == longest(text)
        assert (tree is None) == (lines == []) or text.strip() == ""


F = "def f(x):\n    return x + 1\n"
LONG = {
    "prose": "It's a long story, isn't it?\n" * 5000 + F,
    "prose on both sides": "Here is a line\n" * 2500 + F + "Here is another line\n" * 2500,
    "many blocks of code": f"```python\n{F}```\nThis is the function:\n" * 1000,
    "a long program": "Sure! It's this:\n" + "def g(x):\n    return x\n\n" * 1700 + F + "Isn't it?",
    "open quotes": "'''a\n\"\"\"b\n" * 2500 + F,
    "open brackets": "x = [\n" * 5000 + F,
    "decorators": F + "@cache\n" * 5000 + "what is this\n",
    "tries": F + "try:\n    a\n" * 2500 + "what is this\n",
    "a try without end": F + "try:\n" + "    a = 1\n" * 5000 + "what is this\n",
    "blank lines": "\n" * 5000 + "what is this\n" + F,
    "items": F + "y = 1\n" * 2500 + "what is this\n" + "- item\n" * 2000,
    "brackets in brackets": "(" * 5000 + "\n" + F,
    "a chain": "".join(f"def g{i}(x):\n    return g{i + 1}(x)\n" for i in range(2500)) + F + "what is this\n",
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.slow
def test_an_answer_of_thousands_of_lines_is_searched_in_bounded_time(name: str):
    started = time.process_time()
    code = sanitize(LONG[name], ("f",))
    assert time.process_time() - started < 20  # it takes 0.1 to 3 s where a processor of 2024 is idle
    assert run(code)["f"](1) == 2
    assert len(code) < 100
