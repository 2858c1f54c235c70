"""What surrounds a run? Signals are noted, torch is made to repeat itself; both are put back at the end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(slots=True)
class Signals:
    """Whether someone asked this process to stop."""

    stop: bool = False


@contextmanager
def stop_on_signals() -> Iterator[Signals]:
    """Note SIGINT and SIGTERM for the loop to see; a second one acts at once."""
    wanted = Signals()
    old: dict[signal.Signals, Any] = {}

    def note(number: int, _frame: Any) -> None:
        wanted.stop = True
        for which, handler in old.items():
            signal.signal(which, handler)

    try:
        for which in (signal.SIGINT, signal.SIGTERM):
            old[which] = signal.signal(which, note)
    except ValueError:
        old = {}  # not in the main thread: signals are someone else's
    try:
        yield wanted
    finally:
        for which, handler in old.items():
            signal.signal(which, handler)


@contextmanager
def deterministic() -> Iterator[None]:
    """Make torch repeat itself to the last bit on one machine; put this and the number of threads back at the end."""
    was = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    had = torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was[0])
        torch.utils.deterministic.fill_uninitialized_memory = was[1]
        torch.set_num_threads(had)
