"""Plain forms of values: how arguments and answers cross between guest and host.

JSON's own null, booleans, strings, finite and non-finite floats, small integers and lists stand for themselves.
Every other value is {"t": tag, "v": content}. Decoding runs no code of the sender: no pickle, no marshal.

Guarantees: `decode` returns only objects of exact types from a closed list: built-in types, types of the standard
library (`library_values`), numpy's arrays and scalars (`numpy_values`). A list subclass with its own `__eq__` arrives
as a list. Not kept: identity, aliasing, objects of user classes (refused), the order of sets.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Iterator
from typing import Any

from evalkit.sandbox.wire import library_values
from evalkit.sandbox.wire.errors import UnsupportedValueError

MAX_ITEMS = 1_000_000
"""Most items taken from an iterator that a program returned. An endless iterator fails here."""


def encode(value: Any) -> Any:
    """Return the plain form of `value`, which JSON can hold.

    Raises:
        UnsupportedValueError: The value has none.
    """
    try:
        return _encode(value)
    except RecursionError:
        raise UnsupportedValueError("nested too deeply, or contains itself") from None


def _encode(value: Any) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is str or kind is float:
        return value
    if kind is int:
        # Hexadecimal above 64 bits: decimal conversion is quadratic and capped at 4,300 digits.
        return value if -(1 << 63) <= value < (1 << 63) else {"t": "int", "v": hex(value)}
    if kind is list:
        return [_encode(item) for item in value]
    if kind is tuple:
        return {"t": "tuple", "v": [_encode(item) for item in value]}
    if kind is dict:
        return {"t": "dict", "v": [[_encode(key), _encode(item)] for key, item in value.items()]}
    if kind is set or kind is frozenset:
        return {"t": kind.__name__, "v": [_encode(item) for item in value]}
    return _encode_rare(value, kind)


def _encode_rare(value: Any, kind: type) -> Any:
    form = library_values.find(kind)
    if form is not None:
        return {"t": form.tag, "v": form.content(value, _encode)}
    if "numpy" in sys.modules:
        from evalkit.sandbox.wire import numpy_values  # only then: every loaded module makes each fork slower

        if (array_form := numpy_values.encode(value, _encode)) is not None:
            return array_form
    if kind is type and value in _TYPES.values():
        return {"t": "type", "v": value.__name__}
    # A subclass is sent as its nearest base that has a form: namedtuple as tuple, IntEnum as int.
    for base in kind.__mro__:
        if base in _AS_BASE:
            return _encode(_AS_BASE[base](value))
        if (form := library_values.find(base)) is not None:
            return {"t": form.tag, "v": form.content(value, _encode)}
    if issubclass(kind, Iterator):
        items: list[Any] = []
        for item in value:
            if len(items) >= MAX_ITEMS:
                raise UnsupportedValueError(f"an iterator of more than {MAX_ITEMS:,} items")
            items.append(_encode(item))
        return {"t": "iterator", "v": items}
    raise UnsupportedValueError(f"a value of type {kind.__name__}")


_AS_BASE: dict[type, Any] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    list: lambda value: list(list.__iter__(value)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    dict: lambda value: dict(dict.items(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
}
"""Functions that rebuild a value of a subclass as its base. They bypass the methods that the subclass overrides."""


_TYPES = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, type(None))
}
"""Types that may be arguments or answers themselves, by name."""

_BUILD: dict[str, Any] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
    "iterator": iter,
}
"""Builders from a list of items, by tag. Answers that earlier versions stored may hold the tag `deque`."""

_NUMPY_TAGS = ("numpy array", "numpy scalar", "numpy matrix", "numpy masked")


def decode(form: Any) -> Any:
    """Rebuild the value that `encode` turned into `form`.

    Raises:
        ValueError: `encode` makes no such form.
        RecursionError: The form is nested too deeply.
        MemoryError: The value does not fit into this process' memory.
    """
    if isinstance(form, list):
        return [decode(item) for item in form]
    if not isinstance(form, dict):
        return form
    try:
        tag, content = form["t"], form["v"]
        if tag == "dict":
            return {decode(key): decode(item) for key, item in content}
        if tag == "int":
            return int(content, 16)
        if tag == "type":
            return _TYPES[content]
        if tag in library_values.BUILD:
            return library_values.BUILD[tag](content, decode)
        if tag in _NUMPY_TAGS and "numpy" in sys.modules:
            from evalkit.sandbox.wire import numpy_values

            return numpy_values.BUILD[tag](content, decode)
        return _BUILD[tag]([decode(item) for item in content])
    except (KeyError, TypeError, ArithmeticError) as error:
        raise ValueError(f"not an encoded value: {type(error).__name__}") from None
