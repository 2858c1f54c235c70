"""Progress of training and evaluation: a bar on a terminal, plain lines in a log file."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

from shards.runtime.heartbeat import EVERY_S, Heartbeat, is_live

_RECENT_STEPS = 50
"""Steps over which the rate is taken."""


class Progress:
    """Progress of a number of steps. Use as a context manager.

    Where `log` is a `Heartbeat`, its thread prints the lines, so they come while a step lasts. Any other `log` gets a
    line when a step ends and the last line is older than `EVERY_S` seconds.
    """

    def __init__(
        self,
        title: str,
        total: int,
        *,
        log: Callable[[str], None],
        unit: str = "steps",
        first: int = 0,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a display.

        Args:
            title: Name of the work.
            total: Number of steps.
            log: Prints a line.
            unit: Name of a step, in the plural.
            first: Steps that were done before.
            shown: Whether anything is printed.
            clock: Returns seconds.
        """
        self._title, self._total, self._unit, self._done = title, total, unit, first
        self._log, self._shown, self._clock = log, shown, clock
        self._note = ""
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=_RECENT_STEPS)  # time, steps done, tokens
        self._last_line = self._began = clock()
        self._bar: Any = None
        self._task: Any = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Progress:
        self._recent.append((self._clock(), self._done, 0))
        if not self._shown:
            return self
        if is_live(sys.stderr):
            self._start_bar()
        elif isinstance(self._log, Heartbeat):
            self._open.enter_context(self._log.counting(self._running))
        return self

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

        from shards.runtime.bar import Bar

        if isinstance(self._log, Heartbeat):
            self._open.enter_context(self._log.paused())
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(self._title, total=self._total, completed=self._done, note="")
        self._bar.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._open.close()
        if self._bar is None and self._shown and error is None:
            self._log(self.status())

    def advance(self, *, steps: int, tokens: int, note: str = "") -> None:
        """Add finished steps.

        Args:
            steps: Number of steps.
            tokens: Number of their tokens.
            note: Text to show beside the rate.
        """
        self._done += steps
        self._note = note
        now = self._clock()
        self._recent.append((now, self._done, self._recent[-1][2] + tokens))
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note=f"{self.rate():,.0f} tokens/s  {note}")
        elif self._shown and not isinstance(self._log, Heartbeat) and now - self._last_line >= EVERY_S:
            self._last_line = now
            self._log(self.status())

    def rate(self) -> float:
        """Return tokens per second over the last steps."""
        (start, _, first), (end, _, last) = self._recent[0], self._recent[-1]
        return (last - first) / (end - start) if end > start else 0.0

    def _running(self) -> str:
        """Return the status while steps remain. After the last one the heartbeat counts seconds of what follows."""
        return self.status() if self._done < self._total else ""

    def status(self) -> str:
        """Return one line: steps done, the rate, and the time left once a step is done."""
        (start, before, _), (end, done, _) = self._recent[0], self._recent[-1]
        text = f"{self._title}: {self._done:,} of {self._total:,} {self._unit}"
        if done == before:
            return f"{text}, {self._clock() - self._began:,.0f} s"
        if self._done >= self._total:
            text += f" in {end - self._began:,.0f} s, {self.rate():,.0f} tokens/s"
        else:
            left_s = max(0.0, (self._total - self._done) * (end - start) / (done - before) - (self._clock() - end))
            text += f", {self.rate():,.0f} tokens/s, {left_s:,.0f} s left"
        return f"{text}, {self._note}" if self._note else text
