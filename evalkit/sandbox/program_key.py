"""Keys of programs: the part of a program that decides its verdict, without comments and layout.

Samples of a model often differ in a comment, a blank line or the kind of quotes. Their syntax trees are equal, so
Python compiles them to the same instructions, and one verdict serves them all. A program that may read its own line
numbers is identified by its text, and so is one that does not parse by itself.
"""

from __future__ import annotations

import ast
import functools
import re
import warnings

_MOST_CHARACTERS = 100_000
"""Longer programs are identified by their text: parsing one would take longer than it may save."""

_SEES_LINES = re.compile(
    r"lineno|linecache|traceback|tracemalloc|inspect|frame|settrace|[Pp]rofile|pstats|monitoring|__code__"
    r"|\b(?:dis|trace|[bp]db)\b|\b(?:ag|co|cr|f|gi|tb)_[a-z]|\bwarn"
)
"""Names that a program needs to find out the line of a statement."""


@functools.lru_cache(maxsize=512)  # a model repeats programs, and parsing one takes a millisecond
def program_key(program: str) -> str:
    """Return a text that two programs share only if every check must end the same way for both."""
    by_text = f"text {program}"  # the first word keeps a program's text apart from the tree of another
    if len(program) > _MOST_CHARACTERS or _SEES_LINES.search(program):
        return by_text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes are the program's own matter
            tree = ast.dump(ast.parse(program))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return by_text
    if _SEES_LINES.search(tree):  # a name that the text spells in other letters or escapes
        return by_text
    numpy = "with numpy" if "numpy" in program else "without numpy"  # the checker offers numpy by the text
    return f"tree {numpy} {tree}"
