"""Record tasks on a Ray cluster.

The driver determines the tasks and writes the manifest. Only shard entries pass through Ray: an actor reads the same
corpus and writes into the same folder as any other worker, so the folder must have the same path on every node.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from shards.format.manifest import ShardEntry
from teacher_dump.config import DumpConfig
from teacher_dump.engines.errors import engine_errors
from teacher_dump.engines.registry import start_engine
from teacher_dump.errors import DeadEngineError
from teacher_dump.run.callbacks import Callbacks
from teacher_dump.run.job import DumpJob, prepare_job
from teacher_dump.run.ray_actors import ActorBody, run_on_actors
from teacher_dump.run.signals import StopSignals
from teacher_dump.run.task_runner import run_task
from teacher_dump.tasks.task import Task


class RayWorker:
    """One engine in a process of its own, the body of a Ray actor.

    Args:
        config: The settings.
        folder: Working directory of the driver: paths in the settings are relative to it.
    """

    def __init__(self, config: DumpConfig, folder: str) -> None:
        os.chdir(folder)
        self._job = prepare_job(config)
        self._tasks = {task.name: task for task in self._job.tasks}
        self._engine = start_engine(self._job.engine, self._job.to_engine_config())

    def pid(self) -> int:
        """Return the id of the process that runs the engine."""
        return os.getpid()

    def run(self, name: str) -> dict[str, Any]:
        """Run a task, and return its entry as JSON. A crashed engine ends this process."""
        task = self._tasks[name]
        entry = self._job.entry(task)
        if entry is None:
            try:
                with engine_errors(self._job.engine):
                    entry = run_task(task, self._engine, job=self._job, callbacks=Callbacks())
            except DeadEngineError as error:
                print(error, flush=True)  # to the actor's log; Ray restarts the actor and retries the call
                os._exit(1)
        return entry.to_dict()


def run_on_ray(job: DumpJob, tasks: Sequence[Task], callbacks: Callbacks, stop_signals: StopSignals) -> int:
    """Run tasks on a Ray cluster, and return their number.

    Raises:
        DumpError: Ray is not installed, or the cluster cannot be used.
        DeadEngineError: Restarts of an engine did not help.
    """
    num_tokens = {task.name: task.num_tokens for task in tasks}
    num_finished = 0

    def finish(result: dict[str, Any]) -> None:
        nonlocal num_finished
        if num_finished == 0:
            callbacks.on_load_end()
        num_finished += 1
        entry = ShardEntry.from_dict(result)
        callbacks.on_tokens(num_tokens[entry.name])
        callbacks.on_task_end(entry)

    run_on_actors(
        job.config,
        job.dtype,
        ActorBody(kind=RayWorker, arguments=(job.config, os.getcwd())),
        [task.name for task in tasks],
        on_start=lambda number: callbacks.on_load_begin(f"{job.engine} on {number} Ray actors, {job.dtype}"),
        on_result=finish,
        stop_signals=stop_signals,
    )
    return num_finished
