"""Process-wide state around a run: ranks, signals, log lines and deterministic torch."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from student_train.training.distributed import World

LogLine = Callable[[str], None]
"""Prints one line for people."""


def log_to_stderr(line: str) -> None:
    """Print a line on the error stream."""
    print(line, file=sys.stderr, flush=True)


def log_nothing(line: str) -> None:
    """Drop a line: only the main rank writes the log."""


@dataclass(slots=True)
class Signals:
    """Whether this process was asked to stop."""

    stop: bool = False
    """Set by SIGINT or SIGTERM."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """What a run has from its process."""

    world: World = field(default_factory=World)
    """All ranks."""
    signals: Signals = field(default_factory=Signals)
    """Requests to stop."""
    log: LogLine = log_to_stderr
    """Prints one line for people; does nothing on ranks other than the main one."""


@contextmanager
def stop_on_signals() -> Iterator[Signals]:
    """Record SIGINT and SIGTERM for the training loop. A second signal has its usual effect.

    Outside the main thread Python cannot set handlers; then nothing is recorded.
    """
    signals = Signals()
    previous: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def record(_number: int, _frame: Any) -> None:
        signals.stop = True
        restore()

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, record)
    except ValueError:
        previous = {}
    try:
        yield signals
    finally:
        restore()


@contextmanager
def deterministic() -> Iterator[None]:
    """Make torch give the same bits on each run of one machine. Settings and threads are restored at the end."""
    fill = torch.utils.deterministic
    previous = torch.are_deterministic_algorithms_enabled(), fill.fill_uninitialized_memory
    threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    fill.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(previous[0])
        fill.fill_uninitialized_memory = previous[1]
        torch.set_num_threads(threads)
