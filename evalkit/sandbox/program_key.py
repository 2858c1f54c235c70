"""The part of a program that decides its verdict: its syntax tree, without comments and layout.

Samples of a model often differ in a comment, a blank line or the kind of quotes. Their syntax trees are equal, so
Python compiles them to the same instructions, and one verdict serves them all. A program that may look at its own
lines, and one that does not parse by itself, is told apart by its text.
"""

from __future__ import annotations

import ast
import re
import warnings

_MOST_CHARACTERS = 100_000
"""Longer programs are told apart by their text: parsing one would take longer than it may save."""

_SEES_LINES = re.compile(r"lineno|linecache|traceback|inspect|frame|settrace|setprofile|\b(co|tb|f)_[a-z]|\bwarn")
"""What a program needs to find out which line something stands on."""


def program_key(program: str) -> str:
    """Return a text that two programs share only if every check must end the same way for both."""
    if len(program) > _MOST_CHARACTERS or _SEES_LINES.search(program):
        return program
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes, which are the program's own matter
            return ast.dump(ast.parse(program))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return program
