"""What does the user see while it runs? A bar with rate, time left and loss; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType

_LINE_EVERY_S = 15.0


class Progress:
    """Progress of `total` steps named `title`, on the error stream. Use as a context manager."""

    def __init__(self, title: str, total: int, *, first: int = 0, shown: bool = True) -> None:
        self._title, self._total, self._done = title, total, first
        self._shown = shown
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=50)  # time, done, tokens
        self._last_line = time.monotonic()
        self._bar = None

    def __enter__(self) -> Progress:
        if self._shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(self._title, total=self._total, completed=self._done, note="")
            self._bar.start()
        self._recent.append((time.monotonic(), self._done, 0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._shown and error is None:
            self._line("")

    def advance(self, *, steps: int, tokens: int, note: str = "") -> None:
        """Count `steps` done with `tokens` tokens."""
        self._done += steps
        now = time.monotonic()
        self._recent.append((now, self._done, self._recent[-1][2] + tokens))
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note=f"{self.rate():,.0f} tokens/s  {note}")
        elif self._shown and now - self._last_line >= _LINE_EVERY_S:
            self._line(note)

    def rate(self) -> float:
        """Return tokens per second over the last steps."""
        (start, _, first), (end, _, last) = self._recent[0], self._recent[-1]
        return (last - first) / (end - start) if end > start else 0.0

    def _line(self, note: str) -> None:
        self._last_line = time.monotonic()
        (start, before, _), (end, done, _) = self._recent[0], self._recent[-1]
        each_s = (end - start) / (done - before) if done > before else 0.0
        left_s = (self._total - self._done) * each_s
        line = f"{self._title}: {self._done}/{self._total}, {self.rate():,.0f} tokens/s, {left_s:,.0f} s left"
        print(f"{line}  {note}".rstrip(), file=sys.stderr, flush=True)
