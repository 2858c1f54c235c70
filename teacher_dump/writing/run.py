"""Write the responses: skip finished tasks, write the open ones, and join them after the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from shards.runtime import machine
from shards.runtime.heartbeat import Heartbeat
from shards.storage.temp_files import remove_leftovers, remove_own
from teacher_dump.config import DumpConfig
from teacher_dump.engines.errors import engine_errors
from teacher_dump.errors import DeadEngineError
from teacher_dump.run.job import require_memory
from teacher_dump.run.signals import StopSignals
from teacher_dump.tasks.share import Share
from teacher_dump.writing.engines.registry import start_writer
from teacher_dump.writing.job import WritingJob, prepare_writing
from teacher_dump.writing.settings import WritingSettings
from teacher_dump.writing.store import ResponseStore
from teacher_dump.writing.task import WritingTask
from teacher_dump.writing.task_writer import WritingProgress, write_tasks


@dataclass(frozen=True, kw_only=True, slots=True)
class WritingOutcome:
    """Result of writing."""

    is_complete: bool
    """Whether responses.jsonl is there. False if tasks of other workers are open, or after a signal."""
    new_tasks: int = 0
    reused_tasks: int = 0
    open_tasks: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """Prompts read, and prompts dropped by reason."""


def run_writing(
    config: DumpConfig, settings: WritingSettings, stop_signals: StopSignals, heartbeat: Heartbeat
) -> WritingOutcome:
    """Complete the responses, or write a worker's share of the tasks.

    Args:
        config: Settings of the dump: folder, engine, dtype, parallelism, filters, seed, worker.
        settings: What is written.
        stop_signals: Signals received so far.
        heartbeat: Receives progress.

    Raises:
        ShardError: A problem that the user can fix.
        DeadEngineError: The engine crashed, and the process has to exit.
        Stopped: A signal ended the current tasks.
    """
    store = ResponseStore(config.out)
    remove_leftovers(config.out)
    try:
        if config.ray is None and not store.is_complete:
            _require_memory(config, settings)
        job = prepare_writing(config, settings)
        if store.is_complete:
            store.remove_parts()
            return WritingOutcome(is_complete=True, counts=job.counts)
        finished = {task.name for task in job.tasks if store.is_written(task)}
        share = [t for t in Share.parse(config.worker).of_tasks(job.tasks) if t.name not in finished]
        _announce(job, share, len(finished), heartbeat)
        new_tasks = _write(job, share, stop_signals, heartbeat) if share else 0
        open_tasks = sum(not store.is_written(task) for task in job.tasks)
        if store.is_complete:  # another worker wrote the last task
            store.remove_parts()
        elif not open_tasks:
            store.complete(job.tasks)
        return WritingOutcome(
            is_complete=not open_tasks,
            new_tasks=new_tasks,
            reused_tasks=len(finished),
            open_tasks=open_tasks,
            counts=job.counts,
        )
    finally:
        remove_own(config.out)


def _write(job: WritingJob, tasks: Sequence[WritingTask], stop_signals: StopSignals, heartbeat: Heartbeat) -> int:
    """Write tasks on Ray or in this process, and return their number."""
    if job.config.ray is not None:
        from teacher_dump.writing.ray_writer import write_on_ray

        return write_on_ray(job, tasks, stop_signals, heartbeat)
    heartbeat(f"loading {job.writer.name} into {job.engine}, {job.dtype}, {machine.num_threads()}")
    with engine_errors(job.engine):
        writer = start_writer(job.engine, job.to_writer_config())
    progress = WritingProgress(sum(task.num_answers for task in tasks))
    try:
        with heartbeat.counting(progress.status):
            open_tasks = stop_signals.open_tasks(tasks, job.store.is_written)
            num_tasks = write_tasks(job, open_tasks, writer, progress)
    except DeadEngineError:
        raise  # the engine's processes are gone: there is nothing to close
    except BaseException:
        writer.close()
        raise
    writer.close()
    heartbeat(progress.summary())
    return num_tasks


def _require_memory(config: DumpConfig, settings: WritingSettings) -> None:
    """Check that this machine can hold a large writer, and then the teacher, before anything is fetched.

    Raises:
        DumpError: It cannot.
    """
    require_memory(replace(config, model=settings.writer or config.model))
    if not settings.responses_only:
        require_memory(config)


def _announce(job: WritingJob, tasks: Sequence[WritingTask], num_finished: int, heartbeat: Heartbeat) -> None:
    answers = sum(task.num_answers for task in tasks)
    if answers:
        heartbeat(
            f"writing {answers:,} responses with {job.writer.name} in {len(tasks)} tasks; {num_finished} tasks are "
            "done already"
        )
