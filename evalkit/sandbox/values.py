"""How does a value cross the wall? As plain data, rebuilt on the other side.

A message is an 8-byte big-endian length and JSON in ASCII. JSON's own null, booleans, strings, finite and
non-finite floats, small integers and lists stand for themselves; everything else is {"t": tag, "v": ...}.
No pickle, no marshal: decoding runs no code of the sender's.

Guarantees: what `decode` returns is built from exact built-in types (a list subclass with its own `__eq__`
arrives as a list). Not kept: identity, aliasing, user classes (refused), the order of sets.
"""

from __future__ import annotations

import collections
import json
import os
import re
import select
import struct
import time
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_MESSAGE_BYTES = 16 << 20
"""Longest message that either side accepts; an answer beyond it fails the program.

The references' longest answer takes about half of it. Decoded, a hostile message of that length takes about 1 GB."""

MAX_ITEMS = 1_000_000
"""Most items taken from an iterator that a program returned; endless ones fail here."""

_HEADER = struct.Struct(">Q")


class UnsupportedValueError(Exception):
    """A value that has no plain form: a user's class, a function, a structure that contains itself."""


class ChannelError(Exception):
    """The other side closed the channel, broke the framing, or sent what is not a message."""


class DeadlineError(Exception):
    """The other side did not answer in time."""


def encode(value: Any) -> Any:
    """Return a JSON-able form of `value`.

    Raises:
        UnsupportedValueError: there is none.
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
    if kind.__module__ == "numpy" and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return _encode(value.item())
    if kind is bytes or kind is bytearray:
        return {"t": kind.__name__, "v": value.hex()}
    if kind is complex:
        return {"t": "complex", "v": [value.real, value.imag]}
    if kind is range:
        return {"t": "range", "v": [_encode(value.start), _encode(value.stop), _encode(value.step)]}
    if kind is Fraction:
        return {"t": "fraction", "v": [_encode(value.numerator), _encode(value.denominator)]}
    if kind is Decimal:
        return {"t": "decimal", "v": str(value)}
    if kind is collections.deque:
        return {"t": "deque", "v": [_encode(item) for item in value]}
    if kind is type({}.keys()):
        return {"t": "keys", "v": [_encode(key) for key in value]}
    if kind is re.Match:
        return {"t": "opaque", "v": "match"}
    if kind is type and value in _TYPES.values():
        return {"t": "type", "v": value.__name__}
    # Subclasses travel as their base: Counter and defaultdict as dict, namedtuple as tuple, IntEnum as int.
    for base in (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset):
        if issubclass(kind, base):
            return _encode(_as_base(value, base))
    if issubclass(kind, Iterator) or kind in (type({}.values()), type({}.items()), memoryview):
        items: list[Any] = []
        for item in value:
            if len(items) >= MAX_ITEMS:
                raise UnsupportedValueError(f"an iterator of more than {MAX_ITEMS:,} items")
            items.append(_encode(item))
        return {"t": "iterator", "v": items}
    raise UnsupportedValueError(f"a value of type {kind.__name__}")


def _as_base(value: Any, base: type) -> Any:
    """Rebuild a subclass' value as its base, past any method that the subclass overrides."""
    if base is str:
        return str.__str__(value)
    if base is int:
        return int.__int__(value)
    if base is float:
        return float.__float__(value)
    if base is complex:
        return complex(complex.__getattribute__(value, "real"), complex.__getattribute__(value, "imag"))
    if base is dict:
        return dict(dict.items(value))
    return base(base.__iter__(value))  # type: ignore[attr-defined]  # list, tuple, set, frozenset, bytes


class Opaque:
    """Stands for an object without plain form of which only presence can matter: true, and equal to nothing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<{self._name}>"


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
    "keys": lambda items: dict.fromkeys(items).keys(),
    "range": lambda items: range(*items),
    "fraction": lambda items: Fraction(*items),
    "complex": lambda items: complex(*items),
}


def decode(form: Any) -> Any:
    """Rebuild the value that `encode` turned into `form`.

    Raises:
        ValueError: `form` is not something that `encode` makes. (Also RecursionError, MemoryError.)
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
        if tag == "bytes":
            return bytes.fromhex(content)
        if tag == "bytearray":
            return bytearray.fromhex(content)
        if tag == "opaque":
            return Opaque(str(content)[:40])
        if tag == "type":
            return _TYPES[content]
        if tag == "decimal":
            return Decimal(content)
        return _BUILD[tag]([decode(item) for item in content])
    except (KeyError, TypeError, ArithmeticError) as error:
        raise ValueError(f"not an encoded value: {type(error).__name__}") from None


def pack(message: Any) -> bytes:
    """Return the bytes of one message.

    Raises:
        UnsupportedValueError: it is longer than `MAX_MESSAGE_BYTES`.
    """
    return frame(json.dumps(message, separators=(",", ":")).encode("ascii"))


def frame(body: bytes) -> bytes:
    """Put the length before a message's JSON.

    Raises:
        UnsupportedValueError: it is longer than `MAX_MESSAGE_BYTES`.
    """
    if len(body) > MAX_MESSAGE_BYTES:
        raise UnsupportedValueError(f"an answer of {len(body):,} bytes (at most {MAX_MESSAGE_BYTES:,})")
    return _HEADER.pack(len(body)) + body


def unpack_length(header: bytes) -> int:
    """Return the length that a header announces.

    Raises:
        ChannelError: it is longer than `MAX_MESSAGE_BYTES`.
    """
    (length,) = _HEADER.unpack(header)
    if length > MAX_MESSAGE_BYTES:
        raise ChannelError(f"a message of {length:,} bytes was announced (at most {MAX_MESSAGE_BYTES:,})")
    return int(length)


def send(descriptor: int, data: bytes, *, deadline: float | None = None) -> None:
    """Write all of `data`; `deadline` is in `time.monotonic` seconds.

    Raises:
        ChannelError: the other side is gone.
        DeadlineError: it does not read.
    """
    view = memoryview(data)
    while view:
        if deadline is not None:
            wait_ready(descriptor, write=True, deadline=deadline)
        try:
            # A short write never blocks after the descriptor was found writable, a long one may.
            view = view[os.write(descriptor, view[:65536] if deadline is not None else view) :]
        except BlockingIOError:
            continue
        except OSError as error:
            raise ChannelError(f"channel closed ({error.strerror})") from None


class Reader:
    """Reads messages from a descriptor. What came in beyond one is kept for the next."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting = bytearray()

    def receive(self, deadline: float | None = None) -> Any:
        """Return one message; `deadline` is in `time.monotonic` seconds, for a descriptor that does not block.

        Raises:
            ChannelError: the channel closed or carried something else.
            DeadlineError: nothing complete came in time.
        """
        length = unpack_length(self._take(_HEADER.size, deadline))
        try:
            return json.loads(self._take(length, deadline))
        except (ValueError, RecursionError) as error:
            raise ChannelError(f"not a message: {type(error).__name__}") from None

    def _take(self, size: int, deadline: float | None) -> bytes:
        while len(self._waiting) < size:
            if deadline is not None:
                wait_ready(self._descriptor, write=False, deadline=deadline)
            try:
                part = os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ChannelError(f"channel closed ({error.strerror})") from None
            if not part:
                raise ChannelError("channel closed")
            self._waiting += part
        taken = bytes(self._waiting[:size])
        del self._waiting[:size]
        return taken


def wait_ready(descriptor: int, *, write: bool, deadline: float) -> None:
    """Wait until the descriptor is ready; `select.poll` takes any descriptor number."""
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT if write else select.POLLIN)
    remaining_s = deadline - time.monotonic()
    if remaining_s <= 0 or not poller.poll(max(1.0, remaining_s * 1000.0)):
        raise DeadlineError("no answer in time")
