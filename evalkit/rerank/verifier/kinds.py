"""Kinds of outputs, read from the one line that evidence keeps of a value, and of expected values in tests."""

from __future__ import annotations

import ast
import re
import warnings

_NUMBER = re.compile(r"-?(?:\d|inf\b|nan\b)")
_INTEGER = re.compile(r"-?\d+$")
_OPENING = {"'": "text", '"': "text", "[": "list", "(": "tuple", "{": "braces"}
"""Kind by the first character; a set and a dictionary open alike."""
_WORDS = {"None": "none", "True": "bool", "False": "bool"}


def kind_of(text: str) -> str:
    """Return the kind of the value that `text` shows: the text may be cut, so only its beginning counts.

    Returns:
        `none`, `bool`, `int`, `float`, `text`, `list`, `tuple`, `braces`, or `other`.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[:1] in _OPENING:
        return _OPENING[text[0]]
    if text[:2] in ("b'", 'b"'):
        return "text"
    if _NUMBER.match(text):
        return "int" if _INTEGER.match(text) else "float"
    return "other"


def expected_kind(assertion: str) -> str:
    """Return the kind of the literal that an assert compares with; "" if there is none.

    Args:
        assertion: Source of a model-written assert, which is parsed and never executed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (statement,) = ast.parse(assertion).body
        if not isinstance(statement, ast.Assert) or not isinstance(statement.test, ast.Compare):
            return ""
        sides = [*statement.test.comparators, statement.test.left]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    for side in sides:
        try:
            return kind_of(repr(ast.literal_eval(side)))
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            continue
    return ""
