"""Prepare a dump: resolve the settings, claim the folder and load or write the task list.

The result is the same in every process that works on the folder.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from shards.commit import read_entry, recover_entry
from shards.format.manifest import MANIFEST_NAME, FileEntry, ShardEntry, Writer
from shards.format.schema import Layout, file_schema
from shards.read import open as open_cache
from shards.runtime.machine import DtypeChoice
from teacher_dump.config import DumpConfig
from teacher_dump.corpus.drop_log import DROP_LOG_NAME
from teacher_dump.corpus.readers.hub import pin_revision
from teacher_dump.corpus.readers.sources import require_present
from teacher_dump.engines.base import EngineConfig, resolve_dtype
from teacher_dump.engines.records import RecordSpec
from teacher_dump.engines.registry import (
    ENGINES,
    require_parallelism,
    require_relations,
    require_supported,
    select_engine,
)
from teacher_dump.engines.settings import engine_config, record_layout
from teacher_dump.errors import DumpError
from teacher_dump.model.model_folder import require_quantiser
from teacher_dump.model.registry import lookup
from teacher_dump.model.teachers import LocalTeacher, resolve
from teacher_dump.run.identity import claim, identity_of, planned_version
from teacher_dump.tasks import task_store
from teacher_dump.tasks.row_source import RowSource, row_source
from teacher_dump.tasks.task import Task, group_into_tasks, shuffle_windows
from teacher_dump.tasks.task_store import TaskList

_LARGE_PARAMETERS = 3e9
"""Size of a teacher from which the machine's memory is checked before anything is fetched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DumpJob:
    """A dump with a claimed folder and known tasks."""

    config: DumpConfig
    """The settings, with `auto` of the dtype and a hub revision resolved."""
    engine: str
    """Name of the engine, never auto."""
    dtype: DtypeChoice
    """The dtype of `config`, and the reason for it."""
    model: LocalTeacher
    """The teacher, with the ids that end a text or a turn of these rows."""
    source: RowSource
    layout: Layout
    spec: RecordSpec
    identity: dict[str, Any]
    fingerprint: str
    """Digest of `identity`."""
    tasks: tuple[Task, ...]
    counts: dict[str, int]
    """Documents by filter, and cuts by kind."""
    dropped: FileEntry
    """The list of dropped documents, which is in the folder."""
    writer: Writer | None
    """The model that wrote the responses; None for documents, and for responses that the corpus has."""

    def entry(self, task: Task) -> ShardEntry | None:
        """Return the entry of a task's shard, None if the task is not finished."""
        return recover_entry(self.config.out / task.name, self.schema(task))

    def schema(self, task: Task) -> pa.Schema:
        """Return the schema of a task's shard, with the file's metadata."""
        return file_schema(self.layout, task=task.name.removesuffix(".arrow"), fingerprint=self.fingerprint)

    def to_engine_config(self) -> EngineConfig:
        """Return the settings of the engine."""
        return engine_config(self.config, self.model, self.spec)


def prepare_job(config: DumpConfig) -> DumpJob:
    """Claim the folder and determine the tasks: a pure function of the settings, the teacher and the corpus.

    Raises:
        DumpError: A setting, the teacher, the corpus or the folder cannot be used.
    """
    dtype = resolve_dtype(config.dtype)
    config = replace(config, data=pin_revision(config.data), dtype=dtype.dtype)
    engine = select_engine(config.engine)
    require_parallelism(
        engine,
        tensor_parallel_size=config.tensor_parallel_size,
        pipeline_parallel_size=config.pipeline_parallel_size,
    )
    require_relations(engine, config.relations)
    if not (task_store.exists(config.out) or (config.out / MANIFEST_NAME).exists()):
        require_present(config.data)  # later starts in the folder no longer need the corpus
    model = resolve(config.model, revision=config.revision)
    if ENGINES[engine].uses_transformers:
        require_quantiser(model.folder)
    source = row_source(config, model, known_version=planned_version(config.out))
    model = replace(model, end_tokens=source.end_tokens())
    layout, spec = record_layout(config, model, version=source.version)
    require_supported(engine, engine_config(config, model, spec))
    identity, fingerprint = claim(config, identity_of(config, model, layout, engine, source))
    task_list = _load_or_write_tasks(config, source, fingerprint)
    return DumpJob(
        config=config,
        engine=engine,
        dtype=dtype,
        model=model,
        source=source,
        layout=layout,
        spec=spec,
        identity=identity,
        fingerprint=fingerprint,
        tasks=task_list.tasks,
        counts=task_list.counts,
        dropped=task_list.dropped,
        writer=task_list.writer,
    )


def require_memory(config: DumpConfig) -> None:
    """Check that this machine can hold the weights of a large registered teacher, before anything is fetched.

    Raises:
        DumpError: It cannot.
    """
    entry = lookup(config.model)
    if entry is None or entry.parameters < _LARGE_PARAMETERS:
        return
    import psutil
    import torch

    weight_bytes = 2 * entry.parameters
    gpus = torch.cuda.device_count()
    gpu_bytes = sum(torch.cuda.get_device_properties(i).total_memory for i in range(gpus))
    if gpus and gpu_bytes < weight_bytes:
        raise DumpError(
            f"{config.model}: needs {weight_bytes / 1e9:.0f} GB for its weights in bfloat16, found "
            f"{gpu_bytes / 1e9:.0f} GB on {gpus} GPU(s); use a larger machine with --tensor-parallel-size, or try "
            "--model smollm2-135m"
        )
    if not gpus and psutil.virtual_memory().total < 1.2 * weight_bytes:
        raise DumpError(
            f"{config.model}: needs {weight_bytes / 1e9:.0f} GB of GPU memory for its weights in bfloat16, found no "
            f"GPU and {psutil.virtual_memory().total / 1e9:.0f} GB of memory; run it on 4 GPUs of 80 GB with "
            "--tensor-parallel-size 4, or use --model smollm2-135m to try the product"
        )


def _load_or_write_tasks(config: DumpConfig, source: RowSource, fingerprint: str) -> TaskList:
    for _ in range(3):  # another worker may complete the cache and delete the list after it was written here
        task_list = _tasks_of_complete_cache(config.out) or task_store.load(config.out, fingerprint)
        if task_list is not None:
            return task_list
        _write_tasks(config, source, fingerprint)
    raise DumpError(f"{config.out}: the task list was written, but cannot be read back; check that folder")


def _tasks_of_complete_cache(out: Path) -> TaskList | None:
    """Return the tasks of a cache with all its files, without reading its corpus; None for any other folder."""
    if not (out / MANIFEST_NAME).exists():
        return None
    manifest = open_cache(out).manifest
    dropped = [f for f in manifest.files if f.name == DROP_LOG_NAME]
    if not dropped or not all(read_entry(out / shard.name) for shard in manifest.shards):
        return None
    return TaskList(
        tasks=tuple(Task(name=s.name, num_tokens=s.tokens, windows=()) for s in manifest.shards),
        counts={name: count for name, count in manifest.corpus.items() if isinstance(count, int)},
        dropped=dropped[0],
        writer=manifest.writer,
    )


def _write_tasks(config: DumpConfig, source: RowSource, fingerprint: str) -> None:
    """Read the corpus, and write its task list."""
    corpus = task_store.CorpusFacts()
    tasks = group_into_tasks(
        shuffle_windows(source.windows(corpus), config.seed),
        task_tokens=config.task_tokens,
        fingerprint=fingerprint,
        max_tokens=config.max_tokens,
    )
    if not task_store.save(config.out, fingerprint, tasks, corpus):
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(corpus.counts.items())) or "nothing to read"
        raise DumpError(
            f"--data {config.data}: found no usable document ({kinds}), expected at least one; check the path"
        )
