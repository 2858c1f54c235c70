"""Progress of training and evaluation: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from shards.runtime.heartbeat import EVERY_S, Heartbeat


class Progress:
    """Progress of `total` steps named `title`. Use as a context manager.

    Where `say` is a `Heartbeat`, its thread prints the lines, so that they come while a step lasts. Any other `say`
    gets a line when a step ends and the last line is older than `EVERY_S` seconds.
    """

    def __init__(
        self, title: str, total: int, *, say: Callable[[str], None], unit: str = "steps", first: int = 0,
        shown: bool = True, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._title, self._total, self._unit, self._done = title, total, unit, first
        self._say, self._shown, self._clock = say, shown, clock
        self._note = ""
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=50)  # time, done, tokens
        self._last_line = self._began = clock()
        self._bar = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Progress:
        self._recent.append((self._clock(), self._done, 0))
        if not self._shown:
            return self
        if sys.stderr.isatty():
            self._start_bar()
        elif isinstance(self._say, Heartbeat):
            self._open.enter_context(self._say.counting(self._running))
        return self

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        if isinstance(self._say, Heartbeat):
            self._open.enter_context(self._say.paused())
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
            self._say(self.status())

    def advance(self, *, steps: int, tokens: int, note: str = "") -> None:
        """Count `steps` done with `tokens` tokens."""
        self._done += steps
        self._note = note
        now = self._clock()
        self._recent.append((now, self._done, self._recent[-1][2] + tokens))
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note=f"{self.rate():,.0f} tokens/s  {note}")
        elif self._shown and not isinstance(self._say, Heartbeat) and now - self._last_line >= EVERY_S:
            self._last_line = now
            self._say(self.status())

    def rate(self) -> float:
        """Return tokens per second over the last steps."""
        (start, _, first), (end, _, last) = self._recent[0], self._recent[-1]
        return (last - first) / (end - start) if end > start else 0.0

    def _running(self) -> str:
        # What follows the last step, such as a checkpoint, is told in seconds: the last line comes at the end.
        return self.status() if self._done < self._total else ""

    def status(self) -> str:
        """Return one line: what is done of how much, the rate, and the time left once a step is done."""
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
