"""Tests of the Python tool: what a model reads of results, time-outs, crashes and resets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from evalkit.errors import EvalError
from evalkit.sandbox.interpreter import CellResult
from evalkit.sandbox.pool import Pool
from evalkit.tools.base import ToolContext
from evalkit.tools.python import PythonSession, PythonTool, without_fence
from tests.evalkit.tools.inline.toy_tools import PROBLEM


@pytest.fixture(scope="module")
def tool(pool: Pool) -> Iterator[PythonTool]:
    made = PythonTool(ToolContext(pool=pool))
    yield made
    made.close()


@pytest.fixture
def session(tool: PythonTool) -> Iterator[PythonSession]:
    opened = tool.open(PROBLEM)
    yield opened
    opened.close()


def test_the_example_is_true(session: PythonSession, tool: PythonTool):
    call, result = tool.example
    assert session.call(f"\n{call}\n") == result


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("```python\n1 + 1\n```", "2"),
        ("```\n1 + 1", "2"),
        ("\n\n1 + 1\n\n", "2"),
        ("x = 1", "(no output; print what you want to see)"),
        ("print('\\n\\n')", "(no output; print what you want to see)"),
        ("1 / 0", "Traceback (most recent call last):\n  <cell 1>, line 1, in <module>\n    1 / 0\n"
                  "ZeroDivisionError: division by zero"),
    ],
)  # fmt: skip
def test_results_are_what_a_notebook_shows(code: str, result: str, session: PythonSession):
    assert session.call(code) == result


def test_a_crash_is_said_once_and_the_next_call_works(session: PythonSession):
    session.call("x = 1")
    assert session.call("import os\nos._exit(1)") == "The code ended the interpreter. Names of earlier code are gone."
    assert session.call("x").endswith("NameError: name 'x' is not defined")
    assert session.call("2") == "2"


def test_state_that_threads_cost_is_said_with_the_next_result(session: PythonSession):
    assert session.call("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n1") == "1"
    assert session.call("2") == "The session was restarted: names of earlier code are gone.\n2"
    assert session.call("3") == "3"


@pytest.mark.slow
def test_a_time_out_names_the_limit_and_no_property_of_the_machine(session: PythonSession):
    text = session.call("while True: pass")
    assert text == "TimeoutError: the code ran for more than 2 s and was stopped. Names of earlier code are gone."


class _Results:
    """A session with given results."""

    def __init__(self, *results: CellResult) -> None:
        self._results = list(results)

    def run(self, source: str) -> CellResult:
        return self._results.pop(0)

    def close(self) -> None:
        pass


def test_state_that_was_lost_without_a_word_is_said(session: PythonSession):
    session._session = _Results(
        CellResult(outcome="ran", output="1", is_alive=True),
        CellResult(outcome="ran", output="2", is_alive=True, is_new=True),
    )
    assert session.call("1") == "1"
    assert session.call("2") == "The session was restarted: names of earlier code are gone.\n2"


def test_a_failure_of_the_machine_is_tried_again_and_then_ends_the_run(session: PythonSession):
    failure = CellResult(outcome="infra_error", detail="no memory")
    session._session = _Results(failure, CellResult(outcome="ran", output="1", is_alive=True), failure, failure)
    assert session.call("1") == "1"
    with pytest.raises(EvalError, match="no memory"):
        session.call("1")


def test_nothing_of_the_problem_is_in_a_session(session: PythonSession):
    assert "secret" not in session.call("dict(globals())")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("\nx\n", "x"),
        ("```python\nx\n```\n", "x"),
        ("```py\nx\ny\n", "x\ny"),
        ("```", ""),
        ("", ""),
        ("s = '''\n```\n'''", "s = '''\n```\n'''"),
    ],
)
def test_a_fence_is_taken_off(text: str, code: str):
    assert without_fence(text) == code
