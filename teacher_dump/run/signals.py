"""Which tasks does this worker do, and what ends it early?

Workers know nothing of each other. Worker I of N takes every N-th task; a shard is the only mark of completion, so the
next start may use any other N. SIGTERM and SIGINT (Ctrl-C) abandon the task in hand; a second one ends the process at
once. SIGUSR1 finishes the task in hand first, for schedulers that warn some minutes ahead.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

from shards.runtime.interrupts import end_now
from teacher_dump.errors import DumpError

_Work = TypeVar("_Work")


@dataclass(frozen=True, slots=True)
class Share:
    """Worker `index` of `of`; the first is 1."""

    index: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read "I/N". Raises DumpError."""
        first, _, second = text.partition("/")
        if first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
            return cls(int(first), int(second))
        raise DumpError(f"--worker {text}: expected I/N with I from 1 to N, as in 3/8")

    def of_tasks(self, tasks: Iterable[_Work]) -> list[_Work]:
        """Return the tasks that are this worker's: every N-th."""
        return [task for number, task in enumerate(tasks) if number % self.of == self.index - 1]


class Stopped(BaseException):
    """A signal came. What was interrupted is not to be trusted, what is complete stays.

    Not a KeyboardInterrupt: vLLM swallows those while it waits for its processes to load, and waits on.
    """


class Stop:
    """What a worker was told by signals."""

    def __init__(self) -> None:
        self.signal: int | None = None
        """The first signal that came."""

    def left(self, tasks: Iterable[_Work], is_done: Callable[[_Work], bool]) -> Iterator[_Work]:
        """Yield the tasks that nobody has done when their turn comes, until a signal comes."""
        for task in tasks:
            if self.signal is not None:
                return
            if not is_done(task):
                yield task

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to signals meanwhile; only in a process's main thread."""
        kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        before = {kind: signal.signal(kind, self._came) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _came(self, kind: int, _: FrameType | None) -> None:
        self.signal = self.signal or kind
        if kind != signal.SIGUSR1:
            for again in (signal.SIGINT, signal.SIGTERM):
                signal.signal(again, end_now)
            raise Stopped
