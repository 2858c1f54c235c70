"""Plain forms of values, and the messages that carry them between program and judge.

A message is an 8-byte big-endian length and JSON in ASCII. JSON's own null, booleans, strings, finite and
non-finite floats, small integers and lists stand for themselves; everything else is {"t": tag, "v": ...}.
No pickle, no marshal: decoding runs no code of the sender's.

Guarantees: what `decode` returns is built from exact types of a closed list: built-in ones, those of the standard
library in `library_values`, numpy's arrays and scalars in `numpy_values`. A list subclass with its own `__eq__` arrives
as a list. Not kept: identity, aliasing, user classes (refused), the order of sets.
"""

from __future__ import annotations

import collections
import json
import os
import select
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

from evalkit.sandbox.wire import library_values
from evalkit.sandbox.wire.errors import UnsupportedValueError as UnsupportedValueError

MAX_MESSAGE_BYTES = 16 << 20
"""Longest message that either side accepts; an answer beyond it fails the program.

The references' longest answer takes about half of it. Decoded, a hostile message of that length takes about 1 GB."""

MAX_ITEMS = 1_000_000
"""Most items taken from an iterator that a program returned; endless ones fail here."""

_HEADER = struct.Struct(">Q")


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
    form = library_values.find(kind)
    if form is not None:
        return {"t": form.tag, "v": form.content(value, _encode)}
    if "numpy" in sys.modules:
        from evalkit.sandbox.wire import numpy_values  # loaded only then: every fork pays for a module

        if (numbers := numpy_values.encode(value, _encode)) is not None:
            return numbers
    if kind is type and value in _TYPES.values():
        return {"t": "type", "v": value.__name__}
    # Subclasses travel as the nearest type that has a form: namedtuple as tuple, IntEnum as int.
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
"""What rebuilds a subclass' value as its base, past any method that the subclass overrides."""


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
"""Builders from a list of items. `deque` stands in answers that were kept by earlier versions."""

_NUMPY_TAGS = ("numpy array", "numpy scalar", "numpy matrix", "numpy masked")


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
    """Reads messages from a descriptor. What came in beyond one is kept for the next, also after a DeadlineError."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting = bytearray()
        self._length: int | None = None  # of the message whose header was read

    def receive(self, deadline: float | None = None) -> Any:
        """Return one message; `deadline` is in `time.monotonic` seconds, for a descriptor that does not block.

        Raises:
            ChannelError: the channel closed or carried something else.
            DeadlineError: nothing complete came in time.
        """
        try:
            return json.loads(self.receive_bytes(deadline))
        except (ValueError, RecursionError) as error:
            raise ChannelError(f"not a message: {type(error).__name__}") from None

    def receive_bytes(self, deadline: float | None = None) -> bytes:
        """Return the body of one message; otherwise as `receive`."""
        if self._length is None:
            self._length = unpack_length(self._take(_HEADER.size, deadline))
        body = self._take(self._length, deadline)
        self._length = None
        return body

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
