"""The Python interpreter as a tool: a session in the sandbox for each answer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from evalkit.errors import EvalError
from evalkit.sandbox.interpreter import CellResult, Interpreter, InterpreterSession, SessionLimits
from evalkit.tasks.base import Problem
from evalkit.tools.base import ToolContext

_NO_OUTPUT = "(no output; print what you want to see)"
_LOST = "The session was restarted: names of earlier code are gone.\n"
_LIMITS = SessionLimits(characters=1000)

_ENDINGS = {
    "timeout_cpu": "TimeoutError: the code ran for more than {seconds:g} s and was stopped.",
    "timeout_wall": "TimeoutError: the code took too long and was stopped.",
    "oom": "MemoryError: the code asked for more than {megabytes:.0f} MB.",
    "killed": "The code crashed the interpreter.",
    "exited": "The code ended the interpreter.",
}
"""What the model reads of code that ended its session, by outcome. Limits of the machine are not in it."""


class PythonTool:
    """Runs Python. See `Tool` for the interface."""

    name = "python"
    start, end = "```python", "\n```\n"
    system_text = (
        "Each Python block that you write is run, and its output and the value of its last line are given to you. "
        "Names stay defined from one block to the next. Try your function on examples of the problem, with print. The "
        "function that your blocks define in the end is your answer: write it again only to correct it."
    )
    example = ("def double(x):\n    return 2 * x\n\nprint(double(4))", "8")

    def __init__(self, context: ToolContext) -> None:
        """Run code on the pool of `context`."""
        self._interpreter = Interpreter(context.pool, _LIMITS)

    def open(self, problem: Problem) -> PythonSession:
        """Begin the session of one answer; nothing of the problem is defined in it."""
        return PythonSession(self._interpreter.open())

    def to_dict(self) -> dict[str, Any]:
        """Return the limits."""
        return asdict(_LIMITS)

    def close(self) -> None:
        """Kill all sessions."""
        self._interpreter.close()


class PythonSession:
    """The interpreter of one answer. See `ToolSession` for the interface."""

    def __init__(self, session: InterpreterSession) -> None:
        self._session = session
        self._expects_state = False
        """The model was not told that earlier names are gone."""

    def call(self, text: str) -> str:
        """Run code, perhaps in a Markdown fence, and return its output as the model reads it.

        Raises:
            EvalError: The machine cannot run code.
        """
        code = without_fence(text)
        result = self._session.run(code)
        if result.outcome == "infra_error":  # once more, in a new process: the machine may have recovered
            result = self._session.run(code)
        if result.outcome == "infra_error":
            raise EvalError(f"the Python tool cannot run code ({result.detail}); free memory and run again")
        lost = result.is_new and self._expects_state
        self._expects_state = result.is_alive or result.outcome not in _ENDINGS
        return (_LOST if lost else "") + _shown(result)

    def close(self) -> None:
        """Kill the session."""
        self._session.close()


def _shown(result: CellResult) -> str:
    """Return what the model reads of a result: its output, or how the session ended."""
    if result.is_alive or result.outcome not in _ENDINGS:
        return result.output.strip("\n") or result.detail or _NO_OUTPUT
    ending = _ENDINGS[result.outcome].format(seconds=_LIMITS.call_cpu_s, megabytes=_LIMITS.memory_bytes / 1e6)
    return f"{ending} Names of earlier code are gone."


def without_fence(text: str) -> str:
    """Return code without the Markdown fence around it, if there is one."""
    lines = text.strip("\n").split("\n")
    if lines[0].strip().startswith("```"):
        lines = lines[1:]
        if lines and lines[-1].strip() == "```":
            lines = lines[:-1]
    return "\n".join(lines)
