"""Framed JSON messages between guest and host.

A message is an 8-byte big-endian length and a body. Most bodies are JSON in ASCII. Neither side unpickles anything.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any

from evalkit.sandbox.wire.errors import UnsupportedValueError

MAX_MESSAGE_BYTES = 16 << 20
"""Longest message that either side accepts. An answer beyond it fails the program.

The longest answer of any reference solution takes about half of it. Decoding a hostile message of this length takes
about 1 GB of memory."""

_HEADER = struct.Struct(">Q")
_to_json = json.JSONEncoder(separators=(",", ":")).encode  # `json.dumps` would build an encoder for each message


class ChannelError(Exception):
    """The other side closed the channel, broke the framing, or sent something that is not a message."""


class DeadlineError(Exception):
    """The other side did not answer in time."""


def pack(message: Any) -> bytes:
    """Return the bytes of one JSON message.

    Raises:
        UnsupportedValueError: It is longer than `MAX_MESSAGE_BYTES`.
    """
    return frame(_to_json(message).encode("ascii"))


def frame(body: bytes) -> bytes:
    """Prefix a message's body with its length.

    Raises:
        UnsupportedValueError: It is longer than `MAX_MESSAGE_BYTES`.
    """
    if len(body) > MAX_MESSAGE_BYTES:
        raise UnsupportedValueError(f"an answer of {len(body):,} bytes (at most {MAX_MESSAGE_BYTES:,})")
    return _HEADER.pack(len(body)) + body


def send(descriptor: int, data: bytes, *, deadline: float | None = None) -> None:
    """Write all of `data`; `deadline` is in `time.monotonic` seconds.

    Raises:
        ChannelError: The other side closed the channel.
        DeadlineError: The other side does not read.
    """
    view = memoryview(data)
    while view:
        if deadline is not None:
            wait_ready(descriptor, write=True, deadline=deadline)
        try:
            # A short write never blocks after the descriptor was reported writable; a long one may.
            view = view[os.write(descriptor, view[:65536] if deadline is not None else view) :]
        except BlockingIOError:
            continue
        except OSError as error:
            raise ChannelError(f"channel closed ({error.strerror})") from None


class Reader:
    """A reader of messages from a descriptor.

    Bytes that follow a message stay buffered for the next one, also after a DeadlineError.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()
        self._length: int | None = None  # of the message whose header was read

    def receive(self, deadline: float | None = None) -> Any:
        """Return the next JSON message.

        Args:
            deadline: Latest time in `time.monotonic` seconds, for a non-blocking descriptor.

        Raises:
            ChannelError: The channel was closed or carried something else.
            DeadlineError: No complete message arrived in time.
        """
        try:
            return json.loads(self.receive_bytes(deadline))
        except (ValueError, RecursionError) as error:
            raise ChannelError(f"not a message: {type(error).__name__}") from None

    def receive_bytes(self, deadline: float | None = None) -> bytes:
        """Return the body of the next message; otherwise as `receive`."""
        if self._length is None:
            self._length = _unpack_length(self._take(_HEADER.size, deadline))
        body = self._take(self._length, deadline)
        self._length = None
        return body

    def _take(self, size: int, deadline: float | None) -> bytes:
        while len(self._buffer) < size:
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
            self._buffer += part
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def _unpack_length(header: bytes) -> int:
    (length,) = _HEADER.unpack(header)
    if length > MAX_MESSAGE_BYTES:
        raise ChannelError(f"a message of {length:,} bytes was announced (at most {MAX_MESSAGE_BYTES:,})")
    return int(length)


def wait_ready(descriptor: int, *, write: bool, deadline: float) -> None:
    """Wait until the descriptor is ready. `select.poll` accepts any descriptor number.

    Raises:
        DeadlineError: It is not ready at `deadline`, in `time.monotonic` seconds.
    """
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT if write else select.POLLIN)
    remaining_s = deadline - time.monotonic()
    if remaining_s <= 0 or not poller.poll(max(1.0, remaining_s * 1000.0)):
        raise DeadlineError("no answer in time")
