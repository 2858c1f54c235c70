"""Lines about long work, so that a person or a log hears something at least every fifteen seconds.

`say` prints a line and names the work that begins. While nothing else is said, a thread prints how the work goes: the
text of `status` if there is one, else the seconds since the line. In a log these are plain lines, `every_s` apart. On a
terminal it is one line that is rewritten each second and vanishes when the next line comes.

The error stream is duplicated: lines arrive where they should while another part of the program redirects it.
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
"""Seconds of silence after which a log gets a line. Ticks come each second, and a busy machine may delay them."""
_CLEAR = "\r\x1b[K"


class Heartbeat:
    """Says what is done, and how long it takes. Use as a context manager; call it like a function to say a line."""

    def __init__(
        self,
        *,
        out: TextIO | None = None,
        first: str = "starting",
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
        width: Callable[[], int] = lambda: _width(),
    ) -> None:
        """Print to `out`, by default a duplicate of the error stream; `first` names the work before the first line."""
        self._owned = None if out is not None else _duplicate(sys.stderr)
        self._out: TextIO = out or self._owned or sys.stderr
        self._every_s, self._clock, self._width = every_s, clock, width
        self._live = self._out.isatty()
        self._first: str | None = first
        self._status: Callable[[], str] | None = None
        self._lock = threading.RLock()
        self._shown = False  # whether a line that is rewritten is on the terminal
        self._paused = 0
        self._since = self._last = clock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def is_terminal(self) -> bool:
        """Whether lines go to a terminal."""
        return self._live

    def __call__(self, line: str) -> None:
        """Print a line; what it names is taken to go on until the next one."""
        with self._lock:
            self._since = self._last = self._clock()
            self._write((_CLEAR if self._shown else "") + line + "\n")
            self._shown, self._first = False, None

    @contextlib.contextmanager
    def counting(self, status: Callable[[], str]) -> Iterator[None]:
        """Print the text of `status`, called by the thread, in place of seconds meanwhile."""
        before, self._status = self._status, status
        try:
            yield
        finally:
            self._status = before
            with self._lock:
                self._since = self._clock()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Print nothing meanwhile: something else draws on the terminal."""
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
        """Print what is due; the thread calls this each second."""
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
                self._out = sys.stderr  # what is still said, is not lost

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            self.tick()

    def _clear(self) -> None:
        if self._shown:
            self._write(_CLEAR)
            self._shown = False

    def _write(self, text: str) -> None:
        # A reader that has gone must not end the work.
        with contextlib.suppress(BrokenPipeError):
            self._out.write(text)
            self._out.flush()


def _duplicate(stream: TextIO) -> TextIO | None:
    """Return the stream on a descriptor of its own, None where it has none."""
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
