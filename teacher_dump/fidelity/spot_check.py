"""Spot check: measure the noise of a dump's engine on a few rows, while it is still loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from shards.format.side_files import CHECK_NAME
from shards.read import Cache
from teacher_dump.engines.base import Engine
from teacher_dump.engines.records import RecordSpec
from teacher_dump.fidelity.check_file import header, to_bytes
from teacher_dump.fidelity.differences import tallies_to_dict
from teacher_dump.fidelity.noise import RepeatedRows
from teacher_dump.run.callbacks import Callbacks
from teacher_dump.tasks.task import Task
from teacher_dump.tasks.windowing import Window

MAX_ROWS = 16
MAX_TOKEN_SHARE = 0.005
"""Share of the run's tokens that is scored again, at least one row."""


class SpotCheck(Callbacks):
    """Score a few rows of a dump twice more at its end, and write the differences beside the complete cache.

    Args:
        log: Prints a line.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._repeated: RepeatedRows | None = None

    def on_tasks_end(self, engine: Engine, tasks: Sequence[Task], spec: RecordSpec) -> None:
        """Score the first rows of this run again."""
        self._log("measuring the engine's noise on a few rows")
        self._repeated = RepeatedRows.capture(engine, first_windows(tasks), spec)

    def on_cache_complete(self, cache: Cache) -> None:
        """Write check.json, if this run captured rows."""
        if self._repeated is None:
            return
        engine = {name: value for name, value in cache.manifest.engine.items() if name != "log_probs"}
        noise = self._repeated.noise(range(len(self._repeated.windows)), cache.manifest.layout)
        result = {**header(cache, self._repeated.windows, engine), "noise": tallies_to_dict(noise)}
        cache.store.put(CHECK_NAME, to_bytes(result))


def first_windows(tasks: Iterable[Task]) -> list[Window]:
    """Return the first windows of some tasks: at most MAX_ROWS, and MAX_TOKEN_SHARE of the tokens, but one at least."""
    tasks = list(tasks)
    max_tokens = MAX_TOKEN_SHARE * sum(task.num_tokens for task in tasks)
    windows: list[Window] = []
    num_tokens = 0
    for window in (window for task in tasks for window in task.windows):
        num_tokens += len(window.tokens)
        if windows and (num_tokens > max_tokens or len(windows) == MAX_ROWS):
            break
        windows.append(window)
    return windows
