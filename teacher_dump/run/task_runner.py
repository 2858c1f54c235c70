"""Run one task: pass its windows through the engine and write its shard."""

from __future__ import annotations

from shards.format.manifest import ShardEntry
from shards.write import ShardWriter
from teacher_dump.engines.base import Engine
from teacher_dump.engines.records import to_row
from teacher_dump.run.callbacks import Callbacks
from teacher_dump.run.job import DumpJob
from teacher_dump.tasks.task import Task


def run_task(task: Task, engine: Engine, *, job: DumpJob, callbacks: Callbacks) -> ShardEntry:
    """Capture a task's windows and write its shard.

    Returns:
        The entry of the finished shard, which is on disk.
    """
    writer = ShardWriter(
        job.config.out,
        task.name,
        layout=job.layout,
        task=task.name.removesuffix(".arrow"),
        fingerprint=job.fingerprint,
        chunk_tokens=min(job.config.chunk_tokens, job.config.task_tokens),
    )
    with writer:
        windows = tuple(task.windows)
        for window, packed in zip(windows, engine.capture(windows), strict=True):
            writer.write(to_row(window, packed, job.spec))
            callbacks.on_tokens(len(window.tokens))
        entry = writer.close()
    callbacks.on_task_end(entry)
    return entry
