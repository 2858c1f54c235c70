"""The output of one call: the properties of a value on which the host compares, without the value.

Objects of a program never reach these functions: `CallResult` holds plain forms. Equality is that of digests
(`sandbox/wire/canonical.py`).
"""

from __future__ import annotations

import ast
import builtins
import math
from functools import lru_cache
from typing import Any, NamedTuple

from evalkit.sandbox.execute import CallResult
from evalkit.sandbox.wire.canonical import value_digest
from evalkit.sandbox.wire.errors import UnsupportedValueError
from evalkit.sandbox.wire.values import encode
from evalkit.text import one_line

TEXT_CHARACTERS = 100
"""Longest text of an output."""


class CallOutput(NamedTuple):
    """What one program returned for one call: all that is stored of it."""

    outcome: str
    """As in `sandbox.execute.CallResult`."""
    digest: str = ""
    """Of a value: equal values have equal digests."""
    kind: str = ""
    """Type of the plain value, such as `int`."""
    exception: str = ""
    text: str = ""
    """One line for people of at most `TEXT_CHARACTERS`."""
    number: float = math.nan
    """The value where it is a real number, else NaN."""
    truth: int = -1
    """1 and 0 for true and false values; -1 where there is none."""
    cpu_s: float = 0.0

    @property
    def is_value(self) -> bool:
        """Whether the call returned a value."""
        return self.outcome == "value"


def call_output(result: CallResult) -> CallOutput:
    """Return what is kept of a call's result."""
    if result.outcome != "value":
        text = result.text[:TEXT_CHARACTERS]
        exception = one_line(result.exception)[:TEXT_CHARACTERS]
        return CallOutput(result.outcome, exception=exception, text=text, cpu_s=result.cpu_s)
    kind, number, truth = _properties(result)
    text = result.text[:TEXT_CHARACTERS]
    return CallOutput("value", result.digest, kind, "", text, number, truth, result.cpu_s)


def _properties(result: CallResult) -> tuple[str, float, int]:
    """Return kind, number and truth of a value; a value that is too long has no kind, and is true."""
    try:
        value = result.value()
    except (ValueError, RecursionError, MemoryError):
        return "", math.nan, 1
    return _kind(value), _number(value), _truth(value)


def _kind(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _number(value: Any) -> float:
    if isinstance(value, (str, bytes, bytearray)):
        return math.nan  # float() reads text
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError, ArithmeticError):
        return math.nan


def _truth(value: Any) -> int:
    try:
        return int(bool(value))
    except (TypeError, ValueError, ArithmeticError):  # an array of several items
        return -1


def literal_output(value: Any) -> CallOutput:
    """Return a literal as if a program had returned it.

    Raises:
        UnsupportedValueError, ValueError: It has no plain form.
    """
    return CallOutput("value", value_digest(encode(value)), _kind(value), "", "", _number(value), _truth(value))


def value_source(output: CallOutput) -> str | None:
    """Return an expression that has a program's value or raises its exception; None if there is none."""
    if output.outcome == "exception":
        error = getattr(builtins, output.exception, None)
        is_error = isinstance(error, type) and issubclass(error, Exception)
        return f"(_ for _ in ()).throw({output.exception if is_error else 'Exception'}())"
    return _literal_text(output.text, output.digest) if output.is_value else None


@lru_cache(maxsize=1 << 16)
def _literal_text(text: str, digest: str) -> str | None:
    """Return the text of a value if it is a literal of that value; a text that was cut is none."""
    try:
        return text if literal_output(ast.literal_eval(text)).digest == digest else None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, UnsupportedValueError):
        return None
