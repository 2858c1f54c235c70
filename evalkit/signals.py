"""Turn termination signals into exceptions, so that sandbox processes are ended and files closed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from shards.runtime.interrupts import end_now


class EndedError(BaseException):
    """SIGTERM or SIGHUP was received. A BaseException, so that only the command itself catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def end_quietly() -> Iterator[None]:
    """Raise EndedError on SIGTERM and SIGHUP, and KeyboardInterrupt on Ctrl-C. A second signal ends the process.

    A signal that is ignored, as SIGHUP is after nohup, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: FrameType | None) -> None:
        for handled in before:
            signal.signal(handled, end_now)
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
