"""The tests that a prompt shows, and what a program does on them in the sandbox.

Refinement sees nothing else of a benchmark: neither `Problem.test`, `inputs` nor `reference` is read here, and
`shown_tests` only where the prompt holds their text.
"""

from __future__ import annotations

import ast
import re
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from evalkit.rerank.call_output import CallOutput, call_output
from evalkit.rerank.call_tests import SplitTest, split_test
from evalkit.rerank.inputs.examples import docstrings, prompt_examples
from evalkit.sandbox.execute import CallLimits, ProgramCalls, ProgramResult, execute_calls
from evalkit.sandbox.pool import Pool
from evalkit.tasks.base import Problem
from evalkit.text import one_line

VISIBLE_LIMITS = CallLimits(
    call_cpu_s=1.0,
    after_timeout_cpu_s=0.2,
    program_cpu_s=3.0,
    most_timeouts=2,
    memory_bytes=1 << 30,
    value_bytes=1 << 14,
)
"""Limits of a program on its visible tests."""

_MOST_CHARACTERS = 200
"""Longest test, value or error in a failure."""

_ASSERT = re.compile(r"^[ \t]*(assert[ (].*)$", re.MULTILINE)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_LINE = re.compile(r"\(<program>, line (\d+)\)$")
_LIMITS = {
    "timeout_cpu": "did not end in time",
    "timeout_wall": "did not end in time",
    "oom": "used too much memory",
    "killed": "crashed the interpreter",
    "exited": "ended the interpreter",
    "sandbox_denied": "did what is not allowed here",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class VisibleOutcome:
    """What a program did on the visible tests."""

    passed: int
    """Number of tests that it passed."""
    kind: str
    """`pass`, `wrong`, the name of an exception such as `NameError`, or an outcome of `evalkit.sandbox.verdict`: of the
    first test that failed."""
    failure: str = ""
    """Text about that test for the model: the same for the same program. Empty if all passed."""


def visible_tests(problem: Problem, shown: str) -> tuple[SplitTest, ...]:
    """Return the distinct tests of a problem that a model was shown.

    Args:
        problem: The problem.
        shown: All text that the model was shown of it (`evalkit.tasks.prompts.shown_text`).

    Returns:
        Examples and asserts of docstrings, if `shown` holds the whole prompt, and those of `shown_tests` that it holds.
    """
    sources: list[str] = []
    if problem.prompt.strip() and problem.prompt.strip() in shown:
        sources += [example.test for example in prompt_examples(problem) if example.value]
        sources += _asserts(problem)
    sources += [test for test in problem.shown_tests if test.strip() in shown]
    return tuple(split_test(source, problem.entry_points) for source in dict.fromkeys(map(_normalised, sources)))


def _asserts(problem: Problem) -> list[str]:
    """Return the assert statements in the docstrings that call an entry point."""
    lines = [line for text in docstrings(problem) for line in _ASSERT.findall(text)]
    return [line for line in lines if _normalised(line) and any(f"{name}(" in line for name in problem.entry_points)]


def _normalised(source: str) -> str:
    """Return the source of an assert in one form; "" if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.unparse(ast.parse(source.strip()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""


class VisibleChecker:
    """Runs programs on visible tests, on the checkers of a pool. Use as a context manager."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._threads = ThreadPoolExecutor(pool.workers, thread_name_prefix="visible-tests")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=kind is None, cancel_futures=True)

    def submit(self, program: str, tests: tuple[SplitTest, ...]) -> Future[VisibleOutcome]:
        """Start a program; the outcome's `kind` is `infra_error` if the machine failed at it."""
        return self._threads.submit(self._check, program, tests)

    def _check(self, program: str, tests: tuple[SplitTest, ...]) -> VisibleOutcome:
        calls = tuple(dict.fromkeys(map(_evaluated, tests)))
        job = ProgramCalls(program=program, calls=calls)
        (result,) = execute_calls([job], pool=self._pool, limits=VISIBLE_LIMITS)
        return judge(program, tests, result)


def _is_compared(test: SplitTest) -> bool:
    """Whether the value of a call is compared with a literal, outside the program's process."""
    return bool(test.comparison) and not test.other


def _evaluated(test: SplitTest) -> str:
    """Return what the guest evaluates for a test: the call, or the whole assert beside the program."""
    return test.evaluated if _is_compared(test) else test.source


def judge(program: str, tests: tuple[SplitTest, ...], result: ProgramResult) -> VisibleOutcome:
    """Return the outcome of a program.

    Args:
        program: The program.
        tests: The visible tests.
        result: Its results for the distinct calls of the tests, in order.
    """
    calls = dict.fromkeys(map(_evaluated, tests))
    outputs = dict(zip(calls, map(call_output, result.calls), strict=True))
    failed = [test for test in tests if not _passes(test, outputs[_evaluated(test)])]
    passed = len(tests) - len(failed)
    if any(output.outcome == "infra_error" for output in outputs.values()):
        return VisibleOutcome(passed=passed, kind="infra_error")
    if not failed:
        return VisibleOutcome(passed=passed, kind="pass")
    output = outputs[_evaluated(failed[0])]
    if result.outcome != "ran":
        return VisibleOutcome(passed=passed, kind=_kind(output), failure=_program_failure(program, output))
    return VisibleOutcome(passed=passed, kind=_kind(output), failure=_test_failure(failed[0], output))


def _passes(test: SplitTest, output: CallOutput) -> bool:
    return test.passes(output) if _is_compared(test) else output.is_value


def _kind(output: CallOutput) -> str:
    if output.is_value or output.text == "AssertionError":
        return "wrong"
    return output.exception if output.outcome == "exception" else output.outcome


def _program_failure(program: str, output: CallOutput) -> str:
    """Return the failure of a program whose own statements did not end, with the line if Python names it."""
    if output.outcome != "exception":
        return f"The program {_LIMITS.get(output.outcome, 'failed')}."
    text = _short(_LINE.sub("", output.text))
    lines = program.splitlines()
    if (match := _LINE.search(output.text)) and (number := int(match.group(1))) <= len(lines):
        return f"{text}, in this line:\n{_short(lines[number - 1])}"
    return f"The program raises {text}."


def _test_failure(test: SplitTest, output: CallOutput) -> str:
    """Return the failure of one test: the test, and what the program did."""
    failure = f"This test fails:\n{_short(test.source)}"
    call = _short(_evaluated(test))
    if output.is_value:
        return f"{failure}\n{call} returns {_short(output.text)}."
    if _kind(output) == "wrong":
        return failure
    what = f"raises {_short(output.text)}" if output.outcome == "exception" else _LIMITS.get(output.outcome, "fails")
    return f"{failure}\n{call if _is_compared(test) else 'It'} {what}."


def _short(text: str) -> str:
    """Return one line without addresses of objects, cut in the middle."""
    line = one_line(_ADDRESS.sub("", text))
    if len(line) <= _MOST_CHARACTERS:
        return line
    half = (_MOST_CHARACTERS - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"
