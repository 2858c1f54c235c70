"""Write tasks on a Ray cluster. One actor is one engine; Ray restarts a dead actor and retries its tasks.

An actor stores its responses itself, in the folder of the dump, which must have the same path on every node. It gets
several tasks at a time, so that its slots stay full between them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from shards.runtime.heartbeat import Heartbeat
from teacher_dump.config import DumpConfig
from teacher_dump.engines.errors import engine_errors
from teacher_dump.errors import DeadEngineError
from teacher_dump.run.ray_actors import ActorBody, run_on_actors
from teacher_dump.run.signals import StopSignals
from teacher_dump.writing.engines.registry import start_writer
from teacher_dump.writing.job import WritingJob, prepare_writing
from teacher_dump.writing.settings import WritingSettings
from teacher_dump.writing.task import WritingTask
from teacher_dump.writing.task_writer import WritingProgress, write_tasks

TASKS_PER_CALL = 4
"""Tasks that an actor gets at a time."""


class RayWriter:
    """One engine in a process of its own, the body of a Ray actor.

    Args:
        config: Settings of the dump.
        settings: What is written.
        folder: Working directory of the driver: paths in the settings are relative to it.
    """

    def __init__(self, config: DumpConfig, settings: WritingSettings, folder: str) -> None:
        os.chdir(folder)
        self._job = prepare_writing(config, settings)
        self._tasks = {task.name: task for task in self._job.tasks}
        self._writer = start_writer(self._job.engine, self._job.to_writer_config())

    def run(self, names: Sequence[str]) -> tuple[int, int]:
        """Write tasks, and return the tokens and responses that are new. A crashed engine ends this process."""
        tasks = [task for name in names if not self._job.store.is_written(task := self._tasks[name])]
        progress = WritingProgress(sum(task.num_answers for task in tasks))
        try:
            with engine_errors(self._job.engine):
                write_tasks(self._job, iter(tasks), self._writer, progress)
        except DeadEngineError as error:
            print(error, flush=True)  # to the actor's log; Ray restarts the actor and retries the call
            os._exit(1)
        return progress.tokens, progress.answers


def write_on_ray(job: WritingJob, tasks: Sequence[WritingTask], stop_signals: StopSignals, heartbeat: Heartbeat) -> int:
    """Write tasks on a Ray cluster, and return their number.

    Raises:
        DumpError: Ray is not installed, or the cluster cannot be used.
        DeadEngineError: Restarts of an engine did not help.
    """
    names = [task.name for task in tasks]
    groups = [names[start : start + TASKS_PER_CALL] for start in range(0, len(names), TASKS_PER_CALL)]
    progress = WritingProgress(sum(task.num_answers for task in tasks))
    tensor_parallel_size, pipeline_parallel_size = job.settings.parallel_sizes(
        job.config.tensor_parallel_size, job.config.pipeline_parallel_size
    )
    config = replace(
        job.config, tensor_parallel_size=tensor_parallel_size, pipeline_parallel_size=pipeline_parallel_size
    )
    with heartbeat.counting(progress.status):
        run_on_actors(
            config,
            job.dtype,
            ActorBody(kind=RayWriter, arguments=(job.config, job.settings, os.getcwd())),
            groups,
            on_start=lambda number: heartbeat(
                f"loading {job.writer.name} into {job.engine} on {number} Ray actors, {job.dtype}"
            ),
            on_result=lambda counts: progress.on_tokens(*counts),
            stop_signals=stop_signals,
        )
    heartbeat(progress.summary())
    return sum(job.store.is_written(task) for task in tasks)
