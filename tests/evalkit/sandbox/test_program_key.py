"""Programs are checked once per syntax tree, and identified by their text where their lines could matter."""

from __future__ import annotations

import pytest

from evalkit.sandbox.program_key import program_key
from evalkit.sandbox.verdict import CheckJob
from evalkit.sandbox.verdict_cache import job_key

PROGRAM = "def f(x):\n    return [x, 'a']\n"


@pytest.mark.parametrize(
    "same",
    [
        "# a comment\n\n\ndef f(x):\n    return [x, 'a']  # another\n",
        'def f(x):\n  return [x,"a"]',
        "def f( x ) :\n\treturn [\n  x,\n  'a',\n]\n",
        "def f(x):\r\n    return (([x, 'a']))\r\n",
    ],
)
def test_comments_and_layout_make_no_other_program(same: str) -> None:
    assert program_key(same) == program_key(PROGRAM)


@pytest.mark.parametrize(
    "other",
    [
        "def f(x):\n    'text'\n    return [x, 'a']\n",
        "def f(y):\n    return [y, 'a']\n",
        "def f(x):\n    return (x, 'a')\n",
        "def f(x):\n    return [x, b'a']\n",
        "def f(x):\n    return [x, 'A']\n",
        PROGRAM + "f = None\n",
        "if True:\n    def f(x):\n        return [x, 'a']\n",
    ],
)
def test_whatever_python_compiles_differently_is_another_program(other: str) -> None:
    assert program_key(other) != program_key(PROGRAM)


@pytest.mark.parametrize(
    "program",
    [
        "import sys\ndef f():\n    return sys._getframe().f_lineno\n",
        "import traceback\ndef f():\n    return traceback.format_stack()\n",
        "import inspect\ndef f():\n    return inspect.currentframe()\n",
        "def f():\n    return f.__code__.co_firstlineno\n",
        "def f():\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n        return e.__traceback__\n",
        "def f(x):\n    return x + y \\",
        "@decorator\n",
        "def f(:\n",
        "x = '\0'\n",
        "-" * 90_000 + "1",
        "x = 1\n" * 50_000,
        "[" * 5_000 + "]" * 5_000,
        "x = '\ud800'\n",
        "import dis\ndef f():\n    return [line for _, line in dis.findlinestarts(compile('1', '', 'eval'))]\n",
        "a, b = lambda: 1, lambda: 1\ndef f():\n    return a.__code__ == b.__code__\n",
        "import trace\n",
        "import tracemalloc\n",
        "import cProfile\n",
        "import sys\nsys.monitoring\n",
        "def f():\n    return next(g).gi_code\n",
        "def f():\n    return getattr(f, '\\x5f_code__')\n",
        "def f():\n    return f.__\uff43ode__\n",
    ],
)
def test_programs_that_see_their_lines_or_do_not_parse_are_told_apart_by_their_text(program: str) -> None:
    assert program_key(program) == f"text {program}"
    assert program_key("# more\n" + program) == f"text # more\n{program}"


def test_a_program_that_spells_the_tree_of_another_is_another() -> None:
    program = "x = 1\n" * 4_000
    tree = program_key(program).removeprefix("tree without numpy ")
    assert tree.startswith("Module(")
    assert len(tree) > 100_000  # so long that it is not parsed itself
    assert len({program_key(program), program_key(tree), program_key(program_key(program))}) == 3


@pytest.mark.parametrize(
    "other", ["import \uff4eumpy as np\n", "np = __import__('numpy')\n", "# numpy\nnp = __import__('num' 'py')\n"]
)
def test_programs_share_a_key_only_if_both_or_neither_are_given_numpy(other: str) -> None:
    plain = "np = __import__('num' 'py')\n"
    assert program_key(other) != program_key(plain)
    assert program_key(other) != program_key("import numpy as np\n")


def test_the_number_of_a_literal_counts_and_not_how_it_is_written() -> None:
    assert program_key("x = 0x10\n") == program_key("x = 16\n") != program_key("x = 16.0\n")


def test_jobs_of_equal_programs_share_a_key_only_under_the_same_checks() -> None:
    one = CheckJob(program=PROGRAM, entry_points=("f",), prelude="", test="assert f(1) == [1, 'a']")
    two = CheckJob(program="# c\n" + PROGRAM, entry_points=("f",), prelude="", test="assert f(1) == [1, 'a']")
    other = CheckJob(program=PROGRAM, entry_points=("f",), prelude="", test="assert f(2) == [2, 'a']")
    assert job_key(one) == job_key(two) != job_key(other)
