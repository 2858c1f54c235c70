"""Digests of plain forms: equal values of different programs have equal digests.

"Equal" follows Python's `==`: 1, 1.0, True and Fraction(1) have one digest, a list and a tuple have two, and the order
of a set or a dict does not count. Beyond `==`: every NaN equals every other, an iterator equals another one with the
same items, and a numpy scalar equals the number that it holds. An array equals only an array of the same kind of
items and shape.

The functions read plain forms (`values.encode`), never objects of the program, so no program decides what is equal.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from evalkit.sandbox.wire.library_values import to_bytes

_MOST_DIGITS = 400
"""Decimals with a larger exponent or more digits are not written as a ratio: it could take all memory."""

_SCALAR_FORMATS = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip
"""Numbers of numpy by `dtype.str` without its byte order, as `struct` reads them."""


def value_digest(form: Any) -> str:
    """Return the digest of a plain form: 32 hexadecimal digits.

    Raises:
        ValueError: `values.encode` makes no such form.
    """
    try:
        text = _canonical(form)
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError, struct.error) as error:
        raise ValueError(f"not an encoded value: {type(error).__name__}") from None
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _canonical(form: Any) -> str:
    """Return a text that two forms share only if their values count as equal."""
    if form is None:
        return "n"
    if isinstance(form, str):
        return f"s{len(form)}:{form}"
    if isinstance(form, int | float):
        return _number(form)
    if isinstance(form, list):
        return f"[{_joined(form)}]"
    tag, content = form["t"], form["v"]
    write = _BY_TAG.get(tag)
    return write(content) if write is not None else _other(tag, content)


def _joined(items: list[Any]) -> str:
    return ",".join([_canonical(item) for item in items])


def _number(value: float) -> str:
    if not math.isfinite(value):
        return f"#{value}"
    return _ratio(*value.as_integer_ratio())


def _ratio(numerator: int, denominator: int) -> str:
    return f"#{numerator:x}" if denominator == 1 else f"#{numerator:x}/{denominator:x}"


def _pairs(pairs: list[Any]) -> str:
    return f"d{{{','.join(sorted(f'{_canonical(key)}={_canonical(item)}' for key, item in pairs))}}}"


def _set(items: list[Any]) -> str:
    return f"{{{','.join(sorted(_canonical(item) for item in items))}}}"


def _decimal(text: str) -> str:
    value = Decimal(text)
    if value.is_nan():
        return "#nan"
    if value.is_infinite():
        return f"#{float(value)}"
    if abs(value.adjusted()) > _MOST_DIGITS or len(value.as_tuple().digits) > _MOST_DIGITS:
        return f"decimal {value.as_tuple()}"
    return _ratio(*value.as_integer_ratio())


def _fraction(content: Any) -> str:
    parts = [int(part["v"], 16) if isinstance(part, dict) else part for part in content]
    return _ratio(*Fraction(*parts).as_integer_ratio())


def _complex(content: Any) -> str:
    real, imaginary = (_canonical(part) for part in content)
    return real if imaginary == "#0" else f"c({real},{imaginary})"


def _numpy_scalar(content: Any) -> str:
    kind, _, data = content
    code = _SCALAR_FORMATS.get(kind[1:])
    if code is None:
        return _other("numpy scalar", content)
    (value,) = struct.unpack(f"{'>' if kind[0] == '>' else '<'}{code}", to_bytes(data))
    return _number(value)


def _other(tag: str, content: Any) -> str:
    text = json.dumps([tag, content], sort_keys=True)
    return f"o{len(text)}:{text}"


_BY_TAG: dict[str, Callable[[Any], str]] = {
    "int": lambda content: _ratio(int(content, 16), 1),
    "tuple": lambda content: f"({_joined(content)})",
    "set": _set,
    "frozenset": _set,
    "dict": _pairs,
    "ordered": _pairs,
    "counter": _pairs,
    "userdict": _pairs,
    "defaultdict": lambda content: _pairs(content[1]),
    "mappingproxy": lambda content: _canonical(content),
    "userlist": lambda content: f"[{_joined(content)}]",
    "userstring": lambda content: _canonical(content),
    "bytes": lambda content: f"b{content}",
    "bytearray": lambda content: f"b{content}",
    "complex": _complex,
    "fraction": _fraction,
    "decimal": _decimal,
    "bounded deque": lambda content: f"q[{_joined(content[1])}]",
    "iterator": lambda content: f"i[{_joined(content)}]",
    "numpy scalar": _numpy_scalar,
}
"""Writers of canonical texts by the tag of a form. Forms with another tag are equal only if their content is."""
