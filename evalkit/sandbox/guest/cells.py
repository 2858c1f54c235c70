"""The guest's half of an interpreter session: run one cell after another in the same namespace, as a notebook does.

The request is {"cell": source, "characters": most}. The answer is {"output": text}: what the cell printed, then the
value of its last expression or its traceback. A cell that raised also has {"error": [...]} (`serve.failure_answer`).
"""

from __future__ import annotations

import ast
import io
import linecache
import sys
import traceback
from collections.abc import Callable
from types import CodeType
from typing import Any

from evalkit.sandbox.wire.messages import pack

CELL_FILE = "<cell "
"""Beginning of the names of cells in tracebacks."""

_MOST_FRAMES = 6
"""Frames of a traceback that are shown."""


class _CappedText(io.TextIOBase):
    """Standard output that keeps the first characters of what is written, and counts the others."""

    def __init__(self, most: int) -> None:
        self._parts: list[str] = []
        self._room = most
        self.omitted = 0
        """Characters that were not kept."""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        """Keep what there is room for."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        kept = text[: self._room]
        self._room -= len(kept)
        self.omitted += len(text) - len(kept)
        if kept:
            self._parts.append(kept)
        return len(text)

    def text(self) -> str:
        """Return what was kept, with a line about what was not."""
        return "".join(self._parts) + (f"\n... ({self.omitted} more characters)\n" if self.omitted else "")


class CellRunner:
    """The state of a session: its namespace and the number of cells so far."""

    def __init__(self, module: dict[str, Any], *, failure: Callable[[BaseException], dict[str, Any]]) -> None:
        """Run cells in the namespace `module`; `failure` names an exception."""
        self._module, self._failure = module, failure
        self._number = 0

    def run(self, source: str, *, most: int) -> bytes:
        """Run a cell and return the message that answers it.

        Args:
            source: The cell.
            most: Characters of what is printed, and of the value or traceback, that are kept.
        """
        self._number += 1
        name = f"{CELL_FILE}{self._number}>"
        output, answer, last = _CappedText(most), {}, ""
        streams = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = output
        try:
            last = self._evaluate(source, name)
        except BaseException as error:
            answer = self._failure(error)
            last = _traceback_text(error)
        finally:
            sys.stdout, sys.stderr = streams
        try:
            printed = output.text()
            gap = "\n" if printed and last and not printed.endswith("\n") else ""
            return pack(answer | {"output": printed + gap + _shortened(last, most)})
        except BaseException as error:  # a str or list of the program's own
            return pack(self._failure(error) | {"output": ""})

    def _evaluate(self, source: str, name: str) -> str:
        """Run a cell; return the repr of its last expression, empty for None and for a statement."""
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        tree = ast.parse(source, name)
        value = None
        if tree.body and isinstance(last := tree.body[-1], ast.Expr):
            exec(_code(ast.Module(tree.body[:-1], tree.type_ignores), name), self._module)
            value = eval(_code(ast.Expression(last.value), name), self._module)
        else:
            exec(_code(tree, name), self._module)
        return "" if value is None else repr(value)


def _code(tree: ast.Module | ast.Expression, name: str) -> CodeType:
    mode = "eval" if isinstance(tree, ast.Expression) else "exec"
    code: CodeType = compile(tree, name, mode, dont_inherit=True)
    return code


def _traceback_text(error: BaseException) -> str:
    """Return the traceback of an exception through the session's cells, without this module's own frames."""
    try:
        stack = traceback.extract_tb(error.__traceback__)
        frames = [frame for frame in stack if frame.filename.startswith(CELL_FILE)]
        lines = traceback.format_exception_only(type(error), error)
        if frames:
            omitted = len(frames) - _MOST_FRAMES
            shown = frames if omitted <= 0 else frames[-_MOST_FRAMES:]
            head = ["Traceback (most recent call last):\n"]
            head += [f"  ... {omitted} more frames\n"] if omitted > 0 else []
            # Without the columns, as format_list would underline them: short lines cost few tokens.
            for frame in shown:
                head.append(f"  {frame.filename}, line {frame.lineno}, in {frame.name}\n")
                head += [f"    {frame.line}\n"] if frame.line else []
            lines = head + lines
        return "".join(lines)
    except BaseException:
        return f"{type(error).__name__} (its text could not be made)"


def _shortened(text: str, most: int) -> str:
    """Return a text of at most `most` characters and a gap: the exception is at a traceback's end."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n... ({len(text) - 2 * half} more characters)\n{text[-half:]}"
