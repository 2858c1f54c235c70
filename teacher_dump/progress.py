"""What does a person see of a running dump? A bar with rate and time left; without a terminal, a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shards.manifest import ShardEntry
from teacher_dump.dump import Watcher
from teacher_dump.engines import Engine
from teacher_dump.plan import Task
from teacher_dump.reduce import RecordSpec

if TYPE_CHECKING:
    from teacher_dump.check import Spot

LINE_EVERY_S = 15.0


class Bar(Watcher):
    """Shows a dump's progress on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("tokens, {task.fields[rate]:,.0f} per s,"),
            TextColumn("{task.fields[size]}left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not sys.stderr.isatty(),
        )
        self._tokens = self._new = 0
        self._total = 0
        self._written = self._done = 0
        self.spot: Spot | None = None
        """Rows that were scored again at the end."""
        self._begin = self._last = self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def planned(self, num_tasks: int, num_tokens: int, done_tasks: int, done_tokens: int) -> None:
        """Show the size of the work."""
        self._total, self._tokens = num_tokens, done_tokens
        self._task = self._bar.add_task("captured", total=num_tokens, completed=done_tokens, rate=0.0, size="")
        if done_tasks < num_tasks:
            self._say(f"{num_tasks} tasks, {num_tokens:,} tokens; {done_tasks} tasks are done already")

    def loading(self, engine: str) -> None:
        """Say that the teacher is being loaded."""
        self._say(f"loading the teacher into {engine}")

    def warned(self, line: str) -> None:
        """Show a warning."""
        self._say(line)

    def loaded(self) -> None:
        """Start the clock of the rate."""
        self._begin = time.monotonic()

    def captured(self, num_tokens: int) -> None:
        """Move the bar."""
        self._tokens += num_tokens
        self._new += num_tokens
        self._last = time.monotonic()
        rate = self._new / max(1e-9, self._last - self._begin)
        self._bar.update(self._task, completed=self._tokens, rate=rate)
        if self._bar.disable and time.monotonic() - self._said > LINE_EVERY_S:
            left = (self._total - self._tokens) / rate
            self._say(f"{self._tokens:,} of {self._total:,} tokens, {rate:,.0f} per s, {left:,.0f} s left")

    def finished(self, entry: ShardEntry) -> None:
        """Say that a shard is complete."""
        self._written += entry.bytes
        self._done += entry.tokens
        self._bar.update(self._task, size=f"{self._written / self._done:.1f} bytes each, ")
        self._say(
            f"{entry.name}: {entry.rows} rows, {entry.tokens:,} tokens, {entry.bytes / entry.tokens:.1f} bytes each"
        )

    def idle(self, engine: Engine, tasks: Sequence[Task], spec: RecordSpec) -> None:
        """Score a few rows again, to know the engine's noise."""
        from teacher_dump.check import Spot

        self._say("measuring the engine's noise on a few rows")
        self.spot = Spot.of(engine, tasks, spec)

    def rate(self) -> str:
        """Return what this run did, "" where it captured nothing."""
        seconds = self._last - self._begin
        if not self._new:
            return ""
        return f"{self._new:,} tokens in {seconds:,.0f} s, {self._new / max(1e-9, seconds):,.0f} per s"

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        self._console.print(line, highlight=False, soft_wrap=True)
