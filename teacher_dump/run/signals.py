"""Signals that end a dump early.

SIGTERM and SIGINT (Ctrl-C) abandon the current task; a second one ends the process at once. SIGUSR1 finishes the
current task first, for schedulers that send a warning some minutes before they end a job.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TypeVar

from shards.runtime.interrupts import end_now

_Item = TypeVar("_Item")


class Stopped(BaseException):
    """A signal ended the current task. Its output is incomplete; finished tasks are not affected.

    Not a KeyboardInterrupt: vLLM catches those while its processes load, and continues to wait for them.
    """


class StopSignals:
    """Signals received by this process."""

    def __init__(self) -> None:
        self.first: int | None = None
        """Number of the first signal received."""

    def open_tasks(self, tasks: Iterable[_Item], is_done: Callable[[_Item], bool]) -> Iterator[_Item]:
        """Yield each task that is not done when its turn comes, until a signal is received."""
        for task in tasks:
            if self.first is not None:
                return
            if not is_done(task):
                yield task

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals inside a `with` block, which must run in the process's main thread."""
        kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        previous = {kind: signal.signal(kind, self._handle) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in previous.items():
                signal.signal(kind, handler)

    def _handle(self, kind: int, _: FrameType | None) -> None:
        self.first = self.first or kind
        if kind != signal.SIGUSR1:
            for repeated in (signal.SIGINT, signal.SIGTERM):
                signal.signal(repeated, end_now)
            raise Stopped
