"""Run a dump: skip finished tasks, run the open ones, and write the manifest after the last one.

A shard with its entry is the only mark of a finished task, so a dump may be killed at any time and started again. It
loses the current task, which is retried as a whole, with the same rows in the same batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shards.format.manifest import MANIFEST_NAME
from shards.read import Cache
from shards.read import open as open_cache
from shards.runtime import machine
from shards.storage.temp_files import remove_own
from teacher_dump.config import DumpConfig
from teacher_dump.engines.base import Engine
from teacher_dump.engines.errors import engine_errors
from teacher_dump.engines.registry import start_engine
from teacher_dump.errors import DeadEngineError
from teacher_dump.run.callbacks import Callbacks
from teacher_dump.run.completion import complete_cache, remove_unfinished_files, write_draft
from teacher_dump.run.job import DumpJob, prepare_job, require_memory
from teacher_dump.run.signals import StopSignals
from teacher_dump.run.task_runner import run_task
from teacher_dump.tasks.share import Share
from teacher_dump.tasks.task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class DumpOutcome:
    """Result of a dump."""

    cache: Cache | None
    """None if tasks of other workers are open: the worker that runs the last task writes the manifest."""
    new_tasks: int
    reused_tasks: int
    open_tasks: int = 0
    counts: dict[str, int]
    """Documents by filter, and cuts by kind."""


def dump(
    config: DumpConfig, callbacks: Callbacks | None = None, stop_signals: StopSignals | None = None
) -> DumpOutcome:
    """Complete the cache, or run a worker's share of the tasks.

    Args:
        config: The settings.
        callbacks: Receives the events of the dump.
        stop_signals: Signals received so far; none by default.

    Raises:
        ShardError: A problem that the user can fix.
        DeadEngineError: The engine crashed, and the process has to exit.
        Stopped: A signal ended the current task.
    """
    callbacks, stop_signals = callbacks or Callbacks(), stop_signals or StopSignals()
    if config.ray is None:
        require_memory(config)
    try:
        job = prepare_job(config)
        finished = {task.name for task in job.tasks if job.entry(task) is not None}
        share = Share.parse(config.worker).of_tasks(job.tasks)
        reused_tokens = [task.num_tokens for task in share if task.name in finished]
        callbacks.on_plan(len(share), sum(t.num_tokens for t in share), len(reused_tokens), sum(reused_tokens))
        if len(finished) == len(job.tasks) and (config.out / MANIFEST_NAME).exists():
            outcome = DumpOutcome(
                cache=open_cache(config.out), new_tasks=0, reused_tasks=len(finished), counts=job.counts
            )
            remove_unfinished_files(config.out)
        else:
            open_share = [task for task in share if task.name not in finished]
            outcome = _run_open_tasks(job, open_share, len(finished), callbacks, stop_signals)
        if outcome.cache is not None:
            callbacks.on_cache_complete(outcome.cache)
        return outcome
    finally:
        remove_own(config.out)


def _run_open_tasks(
    job: DumpJob, tasks: Sequence[Task], reused_tasks: int, callbacks: Callbacks, stop_signals: StopSignals
) -> DumpOutcome:
    """Run this worker's open tasks, and complete the cache if no task is left."""
    draft = write_draft(job)
    new_tasks = 0
    if tasks and job.config.ray is not None:
        from teacher_dump.run.ray_launcher import run_on_ray

        new_tasks = run_on_ray(job, tasks, callbacks, stop_signals)
    elif tasks:
        new_tasks = _run_in_process(job, tasks, callbacks, stop_signals)
    entries = [job.entry(task) for task in job.tasks]
    complete = [entry for entry in entries if entry is not None]
    open_tasks = len(entries) - len(complete)
    return DumpOutcome(
        cache=None if open_tasks else complete_cache(job.config.out, draft, complete),
        new_tasks=new_tasks,
        reused_tasks=reused_tasks,
        open_tasks=open_tasks,
        counts=job.counts,
    )


def _run_in_process(job: DumpJob, tasks: Sequence[Task], callbacks: Callbacks, stop_signals: StopSignals) -> int:
    """Run tasks with an engine of this process, and return their number."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if warning := machine.bfloat16_warning(job.dtype, torch, device=device):
        callbacks.on_warning(warning)
    callbacks.on_load_begin(f"{job.engine}, {job.dtype}, {machine.num_threads()}")
    with engine_errors(job.engine):
        engine = start_engine(job.engine, job.to_engine_config())
    callbacks.on_load_end()
    try:
        num_tasks = _run_tasks(job, tasks, engine, callbacks, stop_signals)
        if num_tasks and stop_signals.first is None:
            with engine_errors(job.engine):
                callbacks.on_tasks_end(engine, tasks, job.spec)
    except DeadEngineError:
        raise  # the engine's processes are gone: there is nothing to close
    except BaseException:
        engine.close()
        raise
    engine.close()
    return num_tasks


def _run_tasks(
    job: DumpJob, tasks: Sequence[Task], engine: Engine, callbacks: Callbacks, stop_signals: StopSignals
) -> int:
    num_tasks = 0
    for task in stop_signals.open_tasks(tasks, lambda task: job.entry(task) is not None):
        try:
            with engine_errors(job.engine):
                run_task(task, engine, job=job, callbacks=callbacks)
        except FileNotFoundError:
            if job.entry(task) is None:
                raise
            continue  # another worker ran it, completed the cache and deleted the task list
        num_tasks += 1
    return num_tasks
