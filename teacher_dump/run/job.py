"""What is to be done? A folder claimed for one set of settings, and its tasks, the same in every process on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from shards.commit import read_entry, recover_entry
from shards.format.manifest import MANIFEST_NAME, FileEntry, ShardEntry
from shards.format.schema import Layout, file_schema
from shards.read import open as open_cache
from shards.runtime.machine import DtypeChoice
from teacher_dump.config import DumpConfig
from teacher_dump.corpus import Corpus, Dropped, pinned
from teacher_dump.corpus.drop_log import NAME as DROPPED_NAME
from teacher_dump.engines.base import EngineConfig, resolve_dtype
from teacher_dump.engines.records import RecordSpec
from teacher_dump.engines.registry import ENGINES, require_parallelism, select_engine
from teacher_dump.engines.settings import engine_config, record_layout
from teacher_dump.errors import DumpError
from teacher_dump.model.model_folder import load_tokenizer, require_quantiser
from teacher_dump.model.teachers import Model, known, resolve
from teacher_dump.run.identity import claim, identity_of
from teacher_dump.tasks import task_store
from teacher_dump.tasks.task import Task, shuffled, tasks
from teacher_dump.tasks.task_store import TaskList
from teacher_dump.tasks.windowing import windows


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A dump whose folder is claimed and whose tasks are known: the same in every process that works on it."""

    config: DumpConfig
    engine: str
    """vllm or transformers."""
    dtype: DtypeChoice
    """Also in `config`, where auto is settled."""
    model: Model
    layout: Layout
    spec: RecordSpec
    identity: dict[str, Any]
    fingerprint: str
    work: tuple[Task, ...]
    counts: dict[str, int]
    dropped: FileEntry
    """The list of documents that a filter dropped, which is in the folder."""

    def entry(self, task: Task) -> ShardEntry | None:
        """Return the entry of a task's shard, None where the task is not done."""
        return recover_entry(self.config.out / task.name, self.schema(task))

    def schema(self, task: Task) -> pa.Schema:
        """Return the schema of a task's shard, with what the file says of itself."""
        return file_schema(self.layout, task=task.name.removesuffix(".arrow"), fingerprint=self.fingerprint)

    def taught(self) -> EngineConfig:
        """Return what an engine must know."""
        return engine_config(self.config, self.model, self.spec)


def prepare(config: DumpConfig) -> Job:
    """Claim the folder and find the tasks: a pure function of the settings, the teacher and the corpus."""
    dtype = resolve_dtype(config.dtype)
    config = replace(config, data=pinned(config.data), dtype=dtype.dtype)
    engine = select_engine(config.engine)
    require_parallelism(
        engine,
        tensor_parallel_size=config.tensor_parallel_size,
        pipeline_parallel_size=config.pipeline_parallel_size,
    )
    model = resolve(config.model, revision=config.revision)
    if ENGINES[engine].uses_transformers:
        require_quantiser(model.folder)
    layout, spec = record_layout(config, model)
    identity, fingerprint = claim(config, identity_of(config, model, layout, engine))
    for _ in range(3):  # a worker that completes the cache meanwhile takes the list away
        found = _of_a_complete_cache(config.out) or task_store.load(config.out, fingerprint)
        if found is not None:
            break
        _list_tasks(config, model, fingerprint)
    else:
        raise DumpError(f"{config.out}: the list of tasks was written, but cannot be read back; check that folder")
    return Job(
        config=config,
        engine=engine,
        dtype=dtype,
        model=model,
        layout=layout,
        spec=spec,
        identity=identity,
        fingerprint=fingerprint,
        work=found.tasks,
        counts=found.counts,
        dropped=found.dropped,
    )


def check_machine(config: DumpConfig) -> None:
    """Raise DumpError where a known teacher cannot fit this machine, before anything is fetched."""
    entry = known(config.model)
    if entry is None or entry.parameters < 3e9:
        return
    import psutil
    import torch

    need = 2 * entry.parameters
    gpus = torch.cuda.device_count()
    memory = sum(torch.cuda.get_device_properties(i).total_memory for i in range(gpus))
    if gpus and memory < need:
        raise DumpError(
            f"{config.model}: needs {need / 1e9:.0f} GB for its weights in bfloat16, found {memory / 1e9:.0f} GB on "
            f"{gpus} GPU(s); use a larger machine with --tensor-parallel-size, or try --model smollm2-135m"
        )
    if not gpus and psutil.virtual_memory().total < 1.2 * need:
        raise DumpError(
            f"{config.model}: needs {need / 1e9:.0f} GB of GPU memory for its weights in bfloat16, found no GPU and "
            f"{psutil.virtual_memory().total / 1e9:.0f} GB of memory; run it on 4 GPUs of 80 GB with "
            "--tensor-parallel-size 4, or use --model smollm2-135m to try the product"
        )


def _of_a_complete_cache(out: Path) -> TaskList | None:
    """Return the tasks of a cache that misses nothing, without reading its corpus again; None of any other."""
    if not (out / MANIFEST_NAME).exists():
        return None
    manifest = open_cache(out).manifest
    dropped = [f for f in manifest.files if f.name == DROPPED_NAME]
    if not dropped or not all(read_entry(out / shard.name) for shard in manifest.shards):
        return None
    return TaskList(
        tasks=tuple(Task(name=s.name, num_tokens=s.tokens, windows=()) for s in manifest.shards),
        counts={name: count for name, count in manifest.corpus.items() if isinstance(count, int)},
        dropped=dropped[0],
    )


def _list_tasks(config: DumpConfig, model: Model, fingerprint: str) -> None:
    """Read the corpus, and write down its tasks."""
    counts: Counter[str] = Counter()
    dropped = Dropped()
    work = _tasks(config, model, fingerprint, counts, dropped)
    if not task_store.save(config.out, fingerprint, work, counts, dropped):
        raise DumpError(
            f"--data {config.data}: found no usable document ({_kinds(counts)}), expected at least one; check the path"
        )


def _tasks(
    config: DumpConfig, model: Model, fingerprint: str, counts: Counter[str], dropped: Dropped
) -> Iterator[Task]:
    corpus = Corpus(
        data=config.data,
        seed=config.seed,
        max_documents=config.max_documents,
        filters=config.filters,
        counts=counts,
        dropped=dropped,
    )
    rows = windows(
        corpus,
        load_tokenizer(model.folder),
        prefix_tokens=model.prefix_tokens,
        window_tokens=config.window_tokens,
        counts=counts,
        drop=corpus.drop,
    )
    return tasks(
        shuffled(rows, config.seed),
        task_tokens=config.task_tokens,
        fingerprint=fingerprint,
        max_tokens=config.max_tokens,
    )


def _kinds(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {k}" for k, n in sorted(counts.items())) or "nothing to read"
