"""The untrusted half of a check on EvalPlus' inputs: run one function on many inputs. `check.py` is the host's half.

Requests are {"calls": name, "apart": [indices]} followed by a frame of inputs as marshal data, then {"more": true} or
{"again": [places]} many times. The inputs come from the host, so reading marshal data is safe here. "calls" and "more"
are answered by a frame of answers, as many as were ready within `FLUSH_S`. "again" is answered by {"ok": [...]}: the
answers at these places of the last frame as `values.encode` writes them.

An answer in a frame is `HEAD` (its kind and length) and its bytes. `PLAIN` holds marshal data, which the host never
reads: it compares the bytes with those of the expected value. `OTHER` holds JSON: {"ok": value} or {"error": [...]}.
"""

from __future__ import annotations

import json
import marshal
import struct
import time
from collections.abc import Callable
from typing import Any

from evalkit.sandbox.wire.errors import UnsupportedValueError
from evalkit.sandbox.wire.messages import MAX_MESSAGE_BYTES, ChannelError
from evalkit.sandbox.wire.values import encode

HEAD = struct.Struct(">cI")
PLAIN, OTHER = b"P", b"J"

MARSHAL_VERSION = 2
"""The last version without references to earlier objects: equal values of equal types give equal bytes."""

FLUSH_S = 0.02
"""Time after which the answers so far are sent. The host measures the CPU time between two frames."""

FLUSH_BYTES = 1 << 20
_MOST_BYTES = MAX_MESSAGE_BYTES - 2 * FLUSH_BYTES
"""Longest single answer: together with the answers before it, it fits into a message."""

_SCALARS = (int, str, bool, type(None))
_MAY_BE_CLOSE = (int, float, list, tuple)


def snapshot(value: Any) -> bytes | None:
    """Return the marshal data of a value that consists of plain built-in types only, else None.

    marshal writes any object with a buffer (numpy's scalars, `array.array`) as bytes. Reading the data back and
    comparing shows that.
    """
    try:
        data = marshal.dumps(value, MARSHAL_VERSION)
        if type(value) in _SCALARS or (marshal.loads(data) == value) is True:
            return data
    except Exception:  # comparing objects of other libraries may raise anything
        pass
    return None


def split(body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the answers of a frame as (kind, bytes).

    Raises:
        ChannelError: It is not a frame of answers.
    """
    answers, place = [], 0
    while place < len(body):
        try:
            kind, length = HEAD.unpack_from(body, place)
        except struct.error:
            raise ChannelError("the answers are cut off") from None
        place += HEAD.size
        if kind not in (PLAIN, OTHER) or length > len(body) - place:
            raise ChannelError("the answers are cut off")
        answers.append((kind, body[place : place + length]))
        place += length
    return answers


class InputBatch:
    """Inputs of one function, answered frame by frame."""

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: bytes,
        *,
        apart: list[int],
        failure: Callable[[BaseException], dict[str, Any]],
    ) -> None:
        """Take the inputs of `function`.

        Args:
            function: The program's function.
            inputs: Marshal data of a list of argument lists.
            apart: Indices of inputs whose answers get a frame of their own.
            failure: Names an exception (`serve.failure_answer`).
        """
        self._function, self._failure = function, failure
        self._inputs: list[Any] = marshal.loads(inputs)
        self._apart = frozenset(apart)
        self._next = 0
        self._last: list[tuple[bytes, bytes]] = []
        self._clock = time.monotonic  # the program may replace the module's

    def answers(self) -> bytes:
        """Go on with the inputs and return the next answers as the body of a frame."""
        started, num_bytes = self._clock(), 0
        self._last = []
        while self._next < len(self._inputs):
            index = self._next
            if self._last and index in self._apart:
                break
            self._next += 1
            args, self._inputs[index] = self._inputs[index], None
            kind, data = self._call(args)
            self._last.append((kind, data))
            num_bytes += len(data)
            if index in self._apart or num_bytes > FLUSH_BYTES or self._clock() - started > FLUSH_S:
                break
        return b"".join(HEAD.pack(kind, len(data)) + data for kind, data in self._last)

    def rewritten(self, places: list[int]) -> bytes:
        """Return the answers at `places` of the last frame in JSON."""
        forms = [self._form(*self._last[place]) for place in places]
        return f'{{"ok":[{",".join(forms)}]}}'.encode("ascii")

    def _call(self, args: list[Any]) -> tuple[bytes, bytes]:
        try:
            value = self._function(*args)
            data = snapshot(value)
            if data is not None:
                return PLAIN, self._fitting(data)
            message = {"ok": encode(value)}
            if isinstance(value, _MAY_BE_CLOSE) and type(value) not in _MAY_BE_CLOSE:
                message["subclass"] = True  # it arrives as its base, and is close to nothing in EvalPlus
            return OTHER, self._fitting(json.dumps(message, separators=(",", ":")).encode("ascii"))
        except BaseException as error:
            return OTHER, json.dumps(self._failure(error)).encode("ascii")

    def _form(self, kind: bytes, data: bytes) -> str:
        if kind == OTHER:
            return data.decode("ascii")
        try:
            return json.dumps({"ok": encode(marshal.loads(data))}, separators=(",", ":"))
        except BaseException as error:
            return json.dumps(self._failure(error))

    @staticmethod
    def _fitting(data: bytes) -> bytes:
        if len(data) > _MOST_BYTES:
            raise UnsupportedValueError(f"an answer of {len(data):,} bytes (at most {_MOST_BYTES:,})")
        return data
