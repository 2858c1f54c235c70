"""How is a dump done? Skip the finished tasks, run the others, write the manifest when none is left.

A shard with its entry is the only mark of a finished task, so a dump may be killed at any moment and started again:
it loses the task in hand, which is run again whole, with the same rows in the same batches.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shards.format.manifest import MANIFEST_NAME, FileEntry, Manifest, ShardEntry
from shards.format.manifest import Tokenizer as TokenizerInfo
from shards.live import DRAFT_NAME
from shards.model_files.tokenizer import TokenizerRules
from shards.read import TOKENIZER_FOLDER, Cache
from shards.read import open as open_cache
from shards.reports.statistics import measure
from shards.runtime import machine
from shards.storage.atomic import write_atomic
from shards.storage.temp_files import remove_own
from shards.write import ShardWriter
from teacher_dump.config import DumpConfig
from teacher_dump.corpus import provenance
from teacher_dump.engines.base import Engine
from teacher_dump.engines.errors import engine_errors
from teacher_dump.engines.records import RecordSpec, to_row
from teacher_dump.engines.registry import describe_engine, start_engine
from teacher_dump.errors import DeadEngineError
from teacher_dump.model.model_folder import without_paths
from teacher_dump.run.job import Job, check_machine, prepare
from teacher_dump.run.signals import Share, Stop
from teacher_dump.tasks import task_store
from teacher_dump.tasks.task import Task

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


class Watcher:
    """What a caller may want to hear of a running dump. All methods may be overridden; none must be."""

    def planned(self, num_tasks: int, num_tokens: int, done_tasks: int, done_tokens: int) -> None:
        """The work is known."""

    def loading(self, engine: str) -> None:
        """The teacher is about to be loaded."""

    def warned(self, line: str) -> None:
        """Something about the settings is likely not what the user wants."""

    def loaded(self) -> None:
        """The teacher is loaded."""

    def captured(self, num_tokens: int) -> None:
        """So many more tokens are through the teacher."""

    def finished(self, entry: ShardEntry) -> None:
        """A task is done."""

    def idle(self, engine: Engine, tasks: Sequence[Task], spec: RecordSpec) -> None:
        """All tasks of this process are done, and its engine is still there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a dump did."""

    cache: Cache | None
    """None where tasks of other workers are still open: who does the last one writes the manifest."""
    new_tasks: int
    reused_tasks: int
    open_tasks: int = 0
    counts: dict[str, int]
    """Documents and cuts, by filter and kind."""


def dump(config: DumpConfig, watcher: Watcher | None = None, stop: Stop | None = None) -> Outcome:
    """Make the cache complete, or continue to, or do a worker's share of that.

    Raises ShardError on what a user can mend, DeadEngineError where the process has to end, Stopped on a signal.
    """
    watcher, stop = watcher or Watcher(), stop or Stop()
    if config.ray is None:
        check_machine(config)
    try:
        job = prepare(config)
        done = {task.name: job.entry(task) for task in job.work}
        mine = Share.parse(config.worker).of_tasks(job.work)
        found = [t.num_tokens for t in mine if done[t.name] is not None]
        watcher.planned(len(mine), sum(t.num_tokens for t in mine), len(found), sum(found))
        mine = [task for task in mine if done[task.name] is None]
        reused = sum(e is not None for e in done.values())
        if reused < len(job.work) or not (config.out / MANIFEST_NAME).exists():
            draft = _draft(job)
            if mine and config.ray is not None:
                from teacher_dump.run.ray_launcher import run_on_ray

                new = run_on_ray(job, mine, watcher, stop)
            else:
                new = _run_here(job, mine, watcher, stop) if mine else 0
            entries = [job.entry(task) for task in job.work]
            left = entries.count(None)
            cache = None if left else _finish(config.out, draft, [e for e in entries if e is not None])
        else:
            new, left, cache = 0, 0, open_cache(config.out)
            _tidy(config.out)
        return Outcome(cache=cache, new_tasks=new, reused_tasks=reused, open_tasks=left, counts=job.counts)
    finally:
        remove_own(config.out)


def _run_here(job: Job, tasks: list[Task], watcher: Watcher, stop: Stop) -> int:
    """Do tasks in this process, and return how many."""
    import torch

    if warning := machine.bfloat16_warning(job.dtype, torch, device="cuda" if torch.cuda.is_available() else "cpu"):
        watcher.warned(warning)
    watcher.loading(f"{job.engine}, {job.dtype}, {machine.num_threads()}")
    with engine_errors(job.engine):
        engine = start_engine(job.engine, job.taught())
    watcher.loaded()
    number = 0
    try:
        for task in stop.left(tasks, lambda t: job.entry(t) is not None):
            try:
                with engine_errors(job.engine):
                    run_task(task, engine, job=job, watcher=watcher)
            except FileNotFoundError:
                if job.entry(task) is None:
                    raise
                continue  # another worker did it, completed the cache and took the list of tasks away
            number += 1
        if number and stop.signal is None:
            with engine_errors(job.engine):
                watcher.idle(engine, tasks, job.spec)
    except DeadEngineError:
        raise  # nothing is left to be closed
    except BaseException:
        engine.close()
        raise
    engine.close()
    return number


def run_task(
    task: Task,
    engine: Engine,
    *,
    job: Job,
    watcher: Watcher,
) -> ShardEntry:
    """Ask the teacher about a task's windows and write its shard."""
    writer = ShardWriter(
        job.config.out,
        task.name,
        layout=job.layout,
        task=task.name.removesuffix(".arrow"),
        fingerprint=job.fingerprint,
        chunk_tokens=min(job.config.chunk_tokens, job.config.task_tokens),
    )
    with writer:
        asked = tuple(task.windows)
        for window, packed in zip(asked, engine.capture(asked), strict=True):
            writer.write(to_row(window, packed, job.spec))
            watcher.captured(len(window.tokens))
        entry = writer.close()
    watcher.finished(entry)
    return entry


def _draft(job: Job) -> Manifest:
    """Write the tokenizer and the manifest as it is before the first shard: from then on the cache can be followed."""
    config, model, identity = job.config, job.model, job.identity
    files = [job.dropped]
    for name in _TOKENIZER_FILES:
        if (source := model.folder / name).exists():
            target, content = f"{TOKENIZER_FOLDER}/{name}", without_paths(source.read_bytes())
            write_atomic(config.out / target, content)
            sha256 = hashlib.sha256(content).hexdigest()
            files.append(FileEntry(name=target, bytes=len(content), sha256=sha256))
    tokens = TokenizerRules.load(model.folder).token_bytes()
    engine = {
        **describe_engine(job.engine, job.taught()),
        "dtype_why": job.dtype.why,
        "machine": machine.describe(),
        "threads": machine.num_threads().number,
        "log_probs": "natural log of the softmax of the raw logits over vocab_size ids, computed in float32, T = 1",
    }
    draft = Manifest(
        layout=job.layout,
        teacher=model.teacher,
        tokenizer=TokenizerInfo(
            fingerprint=identity["tokenizer"], vocab_size=max(tokens) + 1, prefix_tokens=model.prefix_tokens
        ),
        engine=engine,
        corpus={
            "source": identity["data"],
            **dict(sorted(job.counts.items())),
            "filters": provenance(config.filters),
            "dropped_sha256": job.dropped.sha256,
        },
        settings={k: identity[k] for k in ("seed", "max_tokens", "max_documents", "window_tokens", "task_tokens")},
        code={"teacherless": importlib.metadata.version("teacherless"), "python": platform.python_version()},
        files=tuple(files),
        shards=(),
    )
    write_atomic(config.out / DRAFT_NAME, draft.to_bytes())
    return draft


def _finish(out: Path, draft: Manifest, entries: list[ShardEntry]) -> Cache:
    """Write the manifest, and return the complete cache."""
    manifest = replace(draft, shards=tuple(entries))
    if (out / MANIFEST_NAME).exists():  # of another worker that saw the last task done, or of a run before
        found = open_cache(out)
        if found.manifest.shards == manifest.shards:
            _tidy(out)
            return found
    manifest = replace(manifest, report=measure(Cache.of(out, manifest)))
    write_atomic(out / MANIFEST_NAME, manifest.to_bytes())
    _tidy(out)
    return open_cache(out)


def _tidy(out: Path) -> None:
    """Take away what only an unfinished cache needs. A kill may come between the manifest and this."""
    if (out / DRAFT_NAME).exists():  # asked first: where nothing is left to take away, a read-only disk is as good
        (out / DRAFT_NAME).unlink(missing_ok=True)
    task_store.discard(out)
