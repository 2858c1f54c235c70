"""Progress of a dump on standard error: a bar with rate and remaining time on a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn

from shards.format.manifest import ShardEntry
from shards.runtime.bar import Bar
from shards.runtime.heartbeat import Heartbeat
from teacher_dump.engines.base import Engine
from teacher_dump.engines.records import RecordSpec
from teacher_dump.run.callbacks import Callbacks
from teacher_dump.tasks.task import Task

_LOADING = {"vllm": "loading the teacher into vllm, which takes about a minute on a CPU"}


class ProgressBar(Callbacks):
    """Display of a dump's progress. Use it in a `with` block.

    Args:
        heartbeat: Prints lines, and reports that long steps are still running.
        clock: Monotonic time in seconds.
    """

    def __init__(self, heartbeat: Heartbeat, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._heartbeat, self._clock = heartbeat, clock
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._total_tokens = 0
        self._tokens = 0
        """Tokens captured, earlier runs included."""
        self._new_tokens = 0
        """Tokens captured by this run."""
        self._begin = self._last = clock()
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def on_plan(self, num_tasks: int, num_tokens: int, done_tasks: int, done_tokens: int) -> None:
        """Print the size of the work."""
        self._total_tokens, self._tokens = num_tokens, done_tokens
        if done_tasks < num_tasks:
            self._heartbeat(f"{num_tasks} tasks, {num_tokens:,} tokens; {done_tasks} tasks are done already")

    def on_warning(self, message: str) -> None:
        """Print a warning."""
        self._heartbeat(message)

    def on_load_begin(self, engine: str) -> None:
        """Print that the teacher is being loaded."""
        self._heartbeat(_LOADING.get(engine, f"loading the teacher into {engine}"))

    def on_load_end(self) -> None:
        """Start the clock of the rate, and the bar on a terminal."""
        self._begin = self._last = self._clock()
        if not self._heartbeat.is_terminal:
            self._cleanup.enter_context(self._heartbeat.counting(self.status))
            return
        self._cleanup.enter_context(self._heartbeat.paused())
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("tokens, {task.fields[rate]:,.0f} per s,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=Console(file=sys.stderr),
        )
        self._task = self._bar.add_task("captured", total=self._total_tokens, completed=self._tokens, rate=0.0)
        self._bar.start()

    def on_tokens(self, num_tokens: int) -> None:
        """Advance the bar."""
        self._tokens += num_tokens
        self._new_tokens += num_tokens
        self._last = self._clock()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._tokens, rate=self._tokens_per_s())

    def on_task_end(self, entry: ShardEntry) -> None:
        """Print the size of a finished shard."""
        line = f"{entry.name}: {entry.rows} rows, {entry.tokens:,} tokens, {entry.bytes / entry.tokens:.1f} bytes each"
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, soft_wrap=True)
        else:
            self._heartbeat(line)

    def on_tasks_end(self, engine: Engine, tasks: Sequence[Task], spec: RecordSpec) -> None:
        """Stop the bar."""
        self._stop()

    def summary(self) -> str:
        """Return the tokens and the rate of this run, "" if it captured nothing."""
        if not self._new_tokens:
            return ""
        return f"{self._new_tokens:,} tokens in {self._last - self._begin:,.0f} s, {self._tokens_per_s():,.0f} per s"

    def status(self) -> str:
        """Return one line: tokens captured of the total, and rate and remaining time after the first window."""
        now = self._clock()
        text = f"{self._tokens:,} of {self._total_tokens:,} tokens"
        if not self._new_tokens:
            return f"{text}, {now - self._begin:,.0f} s; the engine answers a batch of windows at a time"
        rate = self._tokens_per_s()
        left_s = max(0.0, (self._total_tokens - self._tokens) / rate - (now - self._last))
        return f"{text}, {rate:,.0f} per s, {left_s:,.0f} s left"

    def _tokens_per_s(self) -> float:
        return self._new_tokens / max(1e-9, self._last - self._begin)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._cleanup.close()
