"""Progress of work of a known size: a bar on a terminal, which disappears at its end, or lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from shards.runtime.heartbeat import EVERY_S, Heartbeat, is_live


@contextmanager
def progress_bar(
    label: str, total: int, *, unit: Literal["bytes", "tokens"] = "bytes", every_s: float = EVERY_S
) -> Iterator[Callable[[int], None]]:
    """Show progress on standard error. A log gets lines only if the work lasts for more than some seconds.

    Args:
        label: Name of the work.
        total: Size at the end, in `unit`.
        unit: What is counted.
        every_s: Seconds between lines in a log.

    Yields:
        The progress callback, which gets the size of what was done since the last call.
    """
    show = _bar(label, total, unit) if is_live(sys.stderr) else _lines(label, total, unit, every_s)
    with show as advance:
        yield advance


@contextmanager
def _bar(label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from shards.runtime.bar import Bar

    rate = (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else ()
    columns = (TextColumn(label, markup=False), BarColumn(), *rate, TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task: Any = bar.add_task(label, total=total)
        yield lambda size: bar.advance(task, size)


@contextmanager
def _lines(label: str, total: int, unit: str, every_s: float) -> Iterator[Callable[[int], None]]:
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size

    heartbeat = Heartbeat(first=label, every_s=every_s)
    with heartbeat, heartbeat.counting(lambda: f"{label}: {done:,} of {total:,} {unit}"):
        yield advance
