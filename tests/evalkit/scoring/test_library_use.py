"""Tests of the count of programs that use a library."""

from __future__ import annotations

import pytest

from evalkit.rerank.base import ProblemResult
from evalkit.samples.base import Execution, Sample
from evalkit.sandbox.verdict import Verdict
from evalkit.scoring.library_use import count_library_use, uses_library
from evalkit.tasks.base import Problem


@pytest.mark.parametrize(
    ("program", "used"),
    [
        ("import lib\nlib.part.f(1)\n", True),
        ("import lib.part\nx = lib.part.f\n", True),
        ("import lib.part as p\np.f()\n", True),
        ("from lib.part import f as g\ndef h():\n    return g(1)\n", True),
        ("def h():\n    from lib import part\n    return part\n", True),
        ("import lib\nx = 1\n", False),
        ("import library\nlibrary.f()\n", False),
        ("from .lib import f\nf()\n", False),
        ("lib = 3\nlib + 1\n", False),
        ("import lib\ndef f(:\n", False),
        ("import lib\n" + "(" * 5000, False),
    ],
)
def test_a_use_reads_a_name_that_comes_from_the_library(program: str, used: bool) -> None:
    assert uses_library(program, "lib") is used


def test_counts_are_over_all_samples() -> None:
    problem = Problem(task_id="T/0", prompt="import lib\n", entry_points=("f",), prelude="", test="", reference="")
    executions = tuple(
        Execution(sample=Sample(task_id="T/0", index=index, completion=text), verdict=Verdict(outcome=outcome))
        for index, (text, outcome) in enumerate([("lib.f()", "pass"), ("1", "pass"), ("lib.g()", "exception")])
    )
    use = count_library_use([ProblemResult(problem=problem, executions=executions)], "lib")
    assert use.to_dict() == {"name": "lib", "samples": 3, "used": 2, "passed": 2, "passed_and_used": 1}
