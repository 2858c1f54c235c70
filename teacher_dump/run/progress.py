"""Progress of a dump: a bar with rate and time left on a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shards.format.manifest import ShardEntry
from shards.runtime.heartbeat import Heartbeat
from teacher_dump.engines.base import Engine
from teacher_dump.engines.records import RecordSpec
from teacher_dump.run.dump import Watcher
from teacher_dump.tasks.task import Task

if TYPE_CHECKING:
    from teacher_dump.fidelity.rescore import Spot

_LOADING = {"vllm": "loading the teacher into vllm, which takes about a minute on a CPU"}


class Bar(Watcher):
    """Shows a dump's progress on stderr. `say` prints its lines and tells of work that says nothing."""

    def __init__(self, say: Heartbeat, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._bar: Progress | None = None
        self._tokens = self._new = 0
        self._total = 0
        self._written = self._done = 0
        self.spot: Spot | None = None
        """Rows that were scored again at the end."""
        self._begin = self._last = clock()
        self._counting = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_counting()

    def planned(self, num_tasks: int, num_tokens: int, done_tasks: int, done_tokens: int) -> None:
        """Show the size of the work."""
        self._total, self._tokens = num_tokens, done_tokens
        if done_tasks < num_tasks:
            self._say(f"{num_tasks} tasks, {num_tokens:,} tokens; {done_tasks} tasks are done already")

    def loading(self, engine: str) -> None:
        """Say that the teacher is being loaded."""
        self._say(_LOADING.get(engine, f"loading the teacher into {engine}"))

    def warned(self, line: str) -> None:
        """Show a warning."""
        self._say(line)

    def loaded(self) -> None:
        """Start the clock of the rate."""
        self._begin = self._last = self._clock()
        if self._say.is_terminal:
            self._counting.enter_context(self._say.paused())
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=16),
                MofNCompleteColumn(),
                TextColumn("tokens, {task.fields[rate]:,.0f} per s,"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=Console(file=sys.stderr),
            )
            self._task = self._bar.add_task("captured", total=self._total, completed=self._tokens, rate=0.0)
            self._bar.start()
        else:
            self._counting.enter_context(self._say.counting(self.status))

    def captured(self, num_tokens: int) -> None:
        """Count tokens that are through the teacher."""
        self._tokens += num_tokens
        self._new += num_tokens
        self._last = self._clock()
        if self._bar is not None:
            rate = self._new / max(1e-9, self._last - self._begin)
            self._bar.update(self._task, completed=self._tokens, rate=rate)

    def finished(self, entry: ShardEntry) -> None:
        """Say that a shard is complete."""
        self._written += entry.bytes
        self._done += entry.tokens
        line = f"{entry.name}: {entry.rows} rows, {entry.tokens:,} tokens, {entry.bytes / entry.tokens:.1f} bytes each"
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, soft_wrap=True)
        else:
            self._say(line)

    def idle(self, engine: Engine, tasks: Sequence[Task], spec: RecordSpec) -> None:
        """Score a few rows again, to know the engine's noise."""
        from teacher_dump.fidelity.rescore import Spot

        self._end_counting()
        self._say("measuring the engine's noise on a few rows")
        self.spot = Spot.of(engine, tasks, spec)

    def rate(self) -> str:
        """Return what this run did, "" where it captured nothing."""
        seconds = self._last - self._begin
        if not self._new:
            return ""
        return f"{self._new:,} tokens in {seconds:,.0f} s, {self._new / max(1e-9, seconds):,.0f} per s"

    def status(self) -> str:
        """Return one line: what is captured of how much, the rate, and the time left once a window is captured."""
        now = self._clock()
        text = f"{self._tokens:,} of {self._total:,} tokens"
        if not self._new:
            return f"{text}, {now - self._begin:,.0f} s; the engine answers a batch of windows at a time"
        rate = self._new / max(1e-9, self._last - self._begin)
        left_s = max(0.0, (self._total - self._tokens) / rate - (now - self._last))
        return f"{text}, {rate:,.0f} per s, {left_s:,.0f} s left"

    def _end_counting(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._counting.close()
