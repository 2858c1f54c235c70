"""Framed messages: the longest, broken ones, and the deadline of an answer."""

from __future__ import annotations

import os
import time

import pytest

from evalkit.sandbox.wire import messages
from evalkit.sandbox.wire.errors import UnsupportedValueError


def test_an_answer_beyond_the_cap_is_refused():
    with pytest.raises(UnsupportedValueError, match="at most"):
        messages.pack("x" * (messages.MAX_MESSAGE_BYTES + 1))


@pytest.mark.parametrize("data", [b"\x00" * 7, b"\xff" * 8, b"\x00" * 7 + b"\x04nope", b"\x00" * 7 + b"\x09{}"])
def test_broken_messages_are_refused(data):
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    with pytest.raises(messages.ChannelError):
        messages.Reader(reader).receive()
    os.close(reader)


def test_waiting_for_an_answer_ends_at_the_deadline():
    reader, writer = os.pipe()
    started = time.monotonic()
    with pytest.raises(messages.DeadlineError):
        messages.Reader(reader).receive(started + 0.05)
    assert time.monotonic() - started < 1.0
    os.close(reader)
    os.close(writer)
