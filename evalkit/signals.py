"""Signals that ask a run to end: they become exceptions, so that judges are ended and files closed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from shards.runtime.interrupts import end_now


class EndedError(BaseException):
    """SIGTERM or SIGHUP asked to end. Not an Exception: nothing but the command's own end catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def end_quietly() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an EndedError, and Ctrl-C into a KeyboardInterrupt. A second one ends at once.

    A signal that is ignored, as SIGHUP is after nohup, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: FrameType | None) -> None:
        for again in before:
            signal.signal(again, end_now)
        raise KeyboardInterrupt if number == signal.SIGINT else EndedError(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
