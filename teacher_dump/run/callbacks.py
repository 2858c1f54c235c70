"""Events of a running dump, and the base class of what receives them."""

from __future__ import annotations

from collections.abc import Sequence

from shards.format.manifest import ShardEntry
from shards.read import Cache
from teacher_dump.engines.base import Engine
from teacher_dump.engines.records import RecordSpec
from teacher_dump.tasks.task import Task


class Callbacks:
    """Receiver of a dump's events. Every method does nothing by default; a subclass overrides what it needs."""

    def on_plan(self, num_tasks: int, num_tokens: int, done_tasks: int, done_tokens: int) -> None:
        """Handle the size of this process's work, and how much of it earlier runs finished."""

    def on_warning(self, message: str) -> None:
        """Handle a warning about settings that are probably a mistake."""

    def on_load_begin(self, engine: str) -> None:
        """Handle the moment before the teacher is loaded; `engine` describes the engine, its dtype and threads."""

    def on_load_end(self) -> None:
        """Handle the moment after the teacher was loaded."""

    def on_tokens(self, num_tokens: int) -> None:
        """Handle tokens that passed through the teacher since the last call."""

    def on_task_end(self, entry: ShardEntry) -> None:
        """Handle a finished task."""

    def on_tasks_end(self, engine: Engine, tasks: Sequence[Task], spec: RecordSpec) -> None:
        """Handle the end of this process's tasks, while the engine is still loaded.

        Not called where the engine runs in other processes (Ray), or after a signal.
        """

    def on_cache_complete(self, cache: Cache) -> None:
        """Handle the complete cache. Not called where tasks of other workers are still open."""


class CallbackGroup(Callbacks):
    """Pass every event to several receivers, in order."""

    def __init__(self, *members: Callbacks) -> None:
        self._members = members

    def on_plan(self, num_tasks: int, num_tokens: int, done_tasks: int, done_tokens: int) -> None:
        """Pass the event on."""
        for member in self._members:
            member.on_plan(num_tasks, num_tokens, done_tasks, done_tokens)

    def on_warning(self, message: str) -> None:
        """Pass the event on."""
        for member in self._members:
            member.on_warning(message)

    def on_load_begin(self, engine: str) -> None:
        """Pass the event on."""
        for member in self._members:
            member.on_load_begin(engine)

    def on_load_end(self) -> None:
        """Pass the event on."""
        for member in self._members:
            member.on_load_end()

    def on_tokens(self, num_tokens: int) -> None:
        """Pass the event on."""
        for member in self._members:
            member.on_tokens(num_tokens)

    def on_task_end(self, entry: ShardEntry) -> None:
        """Pass the event on."""
        for member in self._members:
            member.on_task_end(entry)

    def on_tasks_end(self, engine: Engine, tasks: Sequence[Task], spec: RecordSpec) -> None:
        """Pass the event on."""
        for member in self._members:
            member.on_tasks_end(engine, tasks, spec)

    def on_cache_complete(self, cache: Cache) -> None:
        """Pass the event on."""
        for member in self._members:
            member.on_cache_complete(cache)
