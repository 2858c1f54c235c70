"""Progress lines of long work, at least one every fifteen seconds.

Calling a `Heartbeat` prints a line, which names the work that begins. Until the next line, a thread prints progress:
the text of a status function, or else the seconds since the line. In a log these are plain lines, `every_s` apart. On
a terminal it is one line that is rewritten each second and disappears when the next line comes.

The error stream is duplicated, so that lines reach it while another part of the program redirects it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self, TextIO

EVERY_S = 10.0
"""Seconds without output after which a log gets a line. Ticks come each second, later on a busy machine."""
_CLEAR = "\r\x1b[K"


class Heartbeat:
    """Prints lines and, between them, progress. A context manager; called as a function, it prints a line."""

    def __init__(
        self,
        *,
        out: TextIO | None = None,
        first: str = "starting",
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
        width: Callable[[], int] = lambda: _width(),
    ) -> None:
        """Prepare the output; the thread starts with the context.

        Args:
            out: Stream to print to; by default a duplicate of the error stream.
            first: Name of the work before the first line.
            every_s: Seconds between lines in a log.
            clock: Function that returns the time in seconds.
            width: Function that returns the number of columns of the terminal.
        """
        self._owned = None if out is not None else _duplicate(sys.stderr)
        self._out: TextIO = out or self._owned or sys.stderr
        self._every_s, self._clock, self._width = every_s, clock, width
        self._live = is_live(self._out)
        self._first: str | None = first
        self._status: Callable[[], str] | None = None
        self._lock = threading.RLock()
        self._shown = False  # whether the terminal shows a line that will be rewritten
        self._paused = 0
        self._since = self._last = clock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def is_terminal(self) -> bool:
        """Whether lines go to a terminal."""
        return self._live

    def __call__(self, line: str) -> None:
        """Print a line, which names the work until the next line."""
        with self._lock:
            self._since = self._last = self._clock()
            self._write((_CLEAR if self._shown else "") + line + "\n")
            self._shown, self._first = False, None

    @contextlib.contextmanager
    def counting(self, status: Callable[[], str]) -> Iterator[None]:
        """Print the text of `status` in place of seconds during the block. The thread calls it."""
        before, self._status = self._status, status
        try:
            yield
        finally:
            self._status = before
            with self._lock:
                self._since = self._clock()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Print nothing during the block, because something else draws on the terminal."""
        with self._lock:
            self._paused += 1
            self._clear()
        try:
            yield
        finally:
            with self._lock:
                self._paused -= 1
                self._since = self._last = self._clock()

    def tick(self) -> None:
        """Print progress if it is due. The thread calls this each second."""
        with self._lock:
            now = self._clock()
            if self._paused or (not self._live and now - self._last < self._every_s):
                return
            text = self._status() if self._status is not None else ""
            text = text or f"{self._first or ' '} {now - self._since:,.0f} s"
            self._last = now
            if self._live:
                self._write(_CLEAR + text[: max(1, self._width() - 1)])
                self._shown = True
            else:
                self._write(text + "\n")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        with self._lock:
            self._clear()
            if self._owned is not None:
                self._owned.close()
                self._out = sys.stderr  # later lines are not lost

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            self.tick()

    def _clear(self) -> None:
        if self._shown:
            self._write(_CLEAR)
            self._shown = False

    def _write(self, text: str) -> None:
        # A closed pipe must not end the work.
        with contextlib.suppress(BrokenPipeError):
            self._out.write(text)
            self._out.flush()


def is_live(stream: TextIO) -> bool:
    """Return whether a stream is a terminal on which a line can be drawn again."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _duplicate(stream: TextIO) -> TextIO | None:
    """Return the stream on a new file descriptor, None if it has no descriptor."""
    try:
        number = os.dup(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return None
    return os.fdopen(number, "w", encoding=stream.encoding, errors="backslashreplace")


def _width() -> int:
    try:
        return os.get_terminal_size(2).columns
    except OSError:
        return 80
