"""Interface of the tools that a model calls while it writes an answer, and the table of tools.

A call is text between the tool's start and end strings. The model writes the start string and the call; the engine
stops at the end string; the tool's result is inserted between `RESULT_START` and `RESULT_END`, and the model goes on
(`evalkit/tools/inline/calls.py`):

    ```python
    print(sum(range(4)))
    ```
    ```output
    6
    ```

To add a tool: implement `Tool` in a module of this folder and add a row to `TOOLS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from evalkit.errors import EvalError
from evalkit.sandbox.pool import Pool
from evalkit.tasks.base import Problem

RESULT_START, RESULT_END = "```output", "```"
"""Strings around a result, in the text that the model continues."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """What tools are built from."""

    pool: Pool
    """Sandbox for all code that a model writes."""
    docs: Path | None = None
    """Index that the documentation search reads; None if none was named."""


class ToolSession(Protocol):
    """A tool's state for one answer. A new answer, also of the same problem, gets a new session."""

    def call(self, text: str) -> str:
        """Answer one call; runs on a thread of its own, and may block.

        Args:
            text: The model's text between the start and end strings, hostile at worst.

        Returns:
            The result for the model. What is wrong with the call is said in it, not raised.

        Raises:
            EvalError: The tool itself cannot work on; the run ends.
        """

    def close(self) -> None:
        """Release what the session holds; may be called from any thread, also during a call, and twice."""


class Tool(Protocol):
    """A tool. Its class takes a `ToolContext`, and raises EvalError if it cannot work in it."""

    name: str
    """Key of `TOOLS`."""
    start: str
    """String that begins a call, such as "```python"; no other tool has it."""
    end: str
    """String at which the engine stops, such as "\\n```\\n". It ends a call if one was begun; tools may share it."""
    system_text: str
    """Lines for the model: what the tool does and when to call it. The form of calls is shown by `example`."""
    example: tuple[str, str]
    """A call and its result, to show to the model. The result is the tool's own."""

    def __init__(self, context: ToolContext) -> None: ...

    def open(self, problem: Problem) -> ToolSession:
        """Begin the session of one answer to `problem`. The scoring tests of the problem must not reach the model."""

    def to_dict(self) -> dict[str, Any]:
        """Return what decides the tool's results, such as limits or the digest of an index, as results record it."""

    def close(self) -> None:
        """Release what the tool holds; its sessions end."""


TOOLS: dict[str, str] = {
    "python": "evalkit.tools.python:PythonTool",
    "docs": "evalkit.tools.docs.tool:DocsTool",
}
"""Classes, as `module:class`, by the name that `--tools` takes; imported when the tool is used."""


def tool_classes(names: Sequence[str]) -> list[type[Tool]]:
    """Return the classes of tools, which know their names and strings.

    Raises:
        EvalError: A name is unknown.
    """
    require_known(names)
    classes = []
    for name in names:
        module, _, cls = TOOLS[name].partition(":")
        classes.append(getattr(importlib.import_module(module), cls))
    return classes


def load_tools(names: Sequence[str], context: ToolContext) -> list[Tool]:
    """Build the tools of a run.

    Args:
        names: Keys of `TOOLS`.
        context: What the tools are built from.

    Raises:
        EvalError: A name is unknown, or a tool cannot work in this context.
    """
    return [cls(context) for cls in tool_classes(names)]


def require_known(names: Sequence[str]) -> None:
    """Refuse names of tools that do not exist.

    Raises:
        EvalError: There is one.
    """
    for name in names:
        if name not in TOOLS:
            raise EvalError(f"tool {name!r} is unknown; expected one of {', '.join(TOOLS)}")
