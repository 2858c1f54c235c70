"""Is the program found in what a chat model says, whole, and without what it adds?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.sanitize import sanitize


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
    code = sanitize(text, "f")
    assert run(code)["f"](1) == 2
    assert sanitize(code, "f") == code  # a program is its own


def test_what_the_entry_point_does_not_need_is_left_out():
    code = sanitize(CASES["a helper, a constant and an import"], "f")
    assert "UNUSED" not in code
    assert "SystemExit" not in code
    assert code.startswith("import math\n")


@pytest.mark.parametrize("text", ["", "I cannot help with that.", "def g(x):\n    return x\n", "\0", "(" * 5000])
def test_an_answer_without_the_function_is_left_as_it_is(text: str):
    assert sanitize(text, "f") == text


@given(st.text(max_size=80))
def test_no_text_breaks_it(text: str):
    assert isinstance(sanitize(text, "f"), str)
    assert "def f(" in sanitize("def f(x):\n    return 1\n\n" + text, "f") or "f" in text


def test_all_references_pass_through_it_unharmed(humaneval, pool):
    answers = [
        problem.job(sanitize(problem.reference + "\nprint('done')\n", problem.entry_points[0]))
        for problem in humaneval.problems
    ]
    assert all(verdict.passed for _, verdict in pool.judge_all(answers))
