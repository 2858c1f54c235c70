"""How is a dump done? Skip the finished tasks, run the others, write the manifest when none is left.

A shard with its entry is the only mark of a finished task, so a dump may be killed at any moment and started again:
it loses the task in hand, which is run again whole, with the same rows in the same batches.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shards.entries import complete_entry, read_entry
from shards.growing import DRAFT_NAME
from shards.manifest import MANIFEST_NAME, FileEntry, Manifest, ShardEntry
from shards.manifest import Tokenizer as TokenizerInfo
from shards.read import TOKENIZER_FOLDER, Cache
from shards.read import open as open_cache
from shards.report import measure
from shards.schema import FORMAT_VERSION, Layout, canonical_json, file_schema
from shards.store import write_whole
from shards.temporary import remove_leftovers, remove_own
from shards.tokenizer import fingerprint as tokenizer_fingerprint
from shards.tokenizer import token_bytes
from shards.write import Row, ShardWriter, file_sha256
from teacher_dump import tasklist
from teacher_dump.config import DumpConfig
from teacher_dump.corpus import Corpus, Dropped, pinned, provenance
from teacher_dump.corpus.dropped import NAME as DROPPED_NAME
from teacher_dump.engines import Engine, Packed, Teaching, choose, describe, dying, resolved_dtype, start, version
from teacher_dump.errors import DeadEngineError, DumpError
from teacher_dump.models import Model, known, resolve
from teacher_dump.plan import Task, shuffled, tasks
from teacher_dump.reduce import RecordSpec
from teacher_dump.tasklist import TaskList
from teacher_dump.windows import Window, windows
from teacher_dump.worker import Share, Stop

PLAN_NAME = "plan.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_WHITESPACE = b" \n\r\t"


class Watcher:
    """What a caller may want to hear of a running dump. All methods may be overridden; none must be."""

    def planned(self, num_tasks: int, num_tokens: int, done_tasks: int, done_tokens: int) -> None:
        """The work is known."""

    def loading(self, engine: str) -> None:
        """The teacher is about to be loaded."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A dump whose folder is claimed and whose tasks are known: the same in every process that works on it."""

    config: DumpConfig
    engine: str
    """vllm or transformers."""
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
        return complete_entry(self.config.out / task.name, self.schema(task))

    def schema(self, task: Task) -> pa.Schema:
        """Return the schema of a task's shard, with what the file says of itself."""
        return file_schema(self.layout, task=task.name.removesuffix(".arrow"), fingerprint=self.fingerprint)

    def taught(self) -> Teaching:
        """Return what an engine must know."""
        return teaching(self.config, self.model, self.spec)


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
                from teacher_dump.launch import run_on_ray

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


def prepare(config: DumpConfig) -> Job:
    """Claim the folder and find the tasks: a pure function of the settings, the teacher and the corpus."""
    config = replace(config, data=pinned(config.data))
    engine = choose(config.engine)
    model = resolve(config.model, revision=config.revision)
    layout, spec = record_layout(config, model)
    identity = _identity(config, model, layout, engine)
    fingerprint = hashlib.sha256(canonical_json(identity)).hexdigest()
    _claim(config.out, fingerprint, identity)
    for _ in range(3):  # a worker that completes the cache meanwhile takes the list away
        found = _of_a_complete_cache(config.out) or tasklist.load(config.out, fingerprint)
        if found is not None:
            break
        _list_tasks(config, model, fingerprint)
    else:
        raise DumpError(f"{config.out}: the list of tasks was written, but cannot be read back; check that folder")
    return Job(
        config=config,
        engine=engine,
        model=model,
        layout=layout,
        spec=spec,
        identity=identity,
        fingerprint=fingerprint,
        work=found.tasks,
        counts=found.counts,
        dropped=found.dropped,
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
    if not tasklist.save(config.out, fingerprint, work, counts, dropped):
        raise DumpError(
            f"--data {config.data}: found no usable document ({_kinds(counts)}), expected at least one; check the path"
        )


def _run_here(job: Job, tasks: list[Task], watcher: Watcher, stop: Stop) -> int:
    """Do tasks in this process, and return how many."""
    watcher.loading(job.engine)
    with dying(job.engine):
        engine = start(job.engine, job.taught())
    watcher.loaded()
    number = 0
    try:
        for task in stop.left(tasks, lambda t: job.entry(t) is not None):
            try:
                with dying(job.engine):
                    run_task(task, engine, job=job, watcher=watcher)
            except FileNotFoundError:
                if job.entry(task) is None:
                    raise
                continue  # another worker did it, completed the cache and took the list of tasks away
            number += 1
        if number and stop.signal is None:
            with dying(job.engine):
                watcher.idle(engine, tasks, job.spec)
    except DeadEngineError:
        raise  # nothing is left to be closed
    except BaseException:
        engine.close()
        raise
    engine.close()
    return number


def record_layout(config: DumpConfig, model: Model) -> tuple[Layout, RecordSpec]:
    """Return how records are stored, and what is recorded."""
    try:
        spec = RecordSpec(threshold=config.threshold, temperatures=config.temperatures)
    except ValueError as error:
        raise DumpError(str(error)) from None
    layout = Layout(
        vocab_size=model.teacher.vocab_size,
        temperatures=spec.temperatures,
        threshold=spec.threshold,
        tail_floor=spec.tail_floor,
    )
    return layout, spec


def teaching(config: DumpConfig, model: Model, spec: RecordSpec) -> Teaching:
    """Return what an engine must know."""
    ends = {*model.end_tokens}
    white = tuple(
        sorted(
            i
            for i, raw in token_bytes(model.folder).items()
            if i < model.teacher.vocab_size and (i in ends or raw[:1] in {_WHITESPACE[j : j + 1] for j in range(4)})
        )
    )
    return Teaching(
        folder=model.folder,
        vocab_size=model.teacher.vocab_size,
        spec=spec,
        seed=config.seed,
        dtype=config.dtype,
        window_tokens=config.window_tokens,
        tensor_parallel_size=config.tensor_parallel_size,
        pipeline_parallel_size=config.pipeline_parallel_size,
        gpu_memory_utilization=config.gpu_memory_utilization,
        max_num_batched_tokens=config.max_num_batched_tokens,
        quantization=config.quantization,
        whitespace_ids=white,
    )


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


def to_row(window: Window, packed: Packed, spec: RecordSpec) -> Row:
    """Unpack the records of a window: fixed-width slots become lists of what is in them."""
    heads, draws = spec.head_slots, spec.draw_slots
    head_ids, drawn = packed[:, :heads], packed[:, 2 * heads : 2 * heads + draws]
    head_probs = np.ascontiguousarray(packed[:, heads : 2 * heads]).view(np.float32)
    scalars = np.ascontiguousarray(packed[:, 2 * heads + draws :]).view(np.float32)
    in_head, is_draw = head_ids >= 0, drawn >= 0
    return Row(
        info=window.info,
        tokens=window.tokens,
        head_count=in_head.sum(1),
        head_ids=head_ids[in_head],
        head_probs=head_probs[in_head],
        draw_count=is_draw.sum(1),
        draw_ids=drawn[is_draw],
        realised_logp=scalars[:, 0],
        whitespace_logp=scalars[:, 1],
        entropy=scalars[:, 2],
        log_z=scalars[:, 3:],
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


def _tasks(
    config: DumpConfig, model: Model, fingerprint: str, counts: Counter[str], dropped: Dropped
) -> Iterator[Task]:
    from transformers import AutoTokenizer

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
        AutoTokenizer.from_pretrained(model.folder),
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


def _identity(config: DumpConfig, model: Model, layout: Layout, engine: str) -> dict[str, Any]:
    """Return everything that decides what a row contains. Another identity is another cache."""
    return {
        "format": FORMAT_VERSION,
        "layout": layout.to_dict(),
        "weights_sha256": model.teacher.weights_sha256,
        "tokenizer": tokenizer_fingerprint(model.folder),
        "prefix_tokens": list(model.prefix_tokens),
        "engine": {"name": engine, "version": version(engine), "dtype": resolved_dtype(config.dtype)},
        "data": config.data,
        **{f"filter {name}": value for name, value in provenance(config.filters).items()},
        "seed": config.seed,
        "max_tokens": config.max_tokens,
        "max_documents": config.max_documents,
        "window_tokens": config.window_tokens,
        "task_tokens": config.task_tokens,
        "chunk_tokens": config.chunk_tokens,
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "quantization": config.quantization,
    }


def _claim(out: Path, fingerprint: str, identity: dict[str, Any]) -> None:
    """Write the plan, or check that the folder's plan is this one. Raises DumpError naming what differs."""
    path = out / PLAN_NAME
    if out.exists() and not out.is_dir():
        raise DumpError(f"--out {out}: found a file, expected a folder or nothing")
    if path.exists():
        try:
            plan = json.loads(path.read_bytes())
            same, old = plan["fingerprint"] == fingerprint, plan["identity"]
        except (ValueError, KeyError, TypeError):
            raise DumpError(f"{path}: not a readable plan; choose another --out, or delete that folder") from None
        if not same:
            names = [k for k in identity if identity[k] != old.get(k)]
            what = "; ".join(f"{n} {old.get(n)} there, {identity[n]} asked for" for n in names[:3])
            raise DumpError(f"--out {out}: holds a cache with other settings ({what}); choose another --out")
    elif (out / MANIFEST_NAME).exists() or any(out.glob("*.arrow")):
        raise DumpError(f"--out {out}: holds a cache without {PLAN_NAME}, which can only be read; choose another --out")
    else:
        write_whole(path, canonical_json({"fingerprint": fingerprint, "identity": identity}))
    remove_leftovers(out)


def _draft(job: Job) -> Manifest:
    """Write the tokenizer and the manifest as it is before the first shard: from then on the cache can be followed."""
    config, model, identity = job.config, job.model, job.identity
    files = [job.dropped]
    for name in _TOKENIZER_FILES:
        if (source := model.folder / name).exists():
            target = f"{TOKENIZER_FOLDER}/{name}"
            write_whole(config.out / target, source.read_bytes())
            files.append(FileEntry(name=target, bytes=source.stat().st_size, sha256=file_sha256(source)))
    tokens = token_bytes(model.folder)
    engine = {
        **describe(job.engine, job.taught()),
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
            "source": config.data,
            **dict(sorted(job.counts.items())),
            "filters": provenance(config.filters),
            "dropped_sha256": job.dropped.sha256,
        },
        settings={k: identity[k] for k in ("seed", "max_tokens", "max_documents", "window_tokens", "task_tokens")},
        code={"teacherless": importlib.metadata.version("teacherless"), "python": platform.python_version()},
        files=tuple(files),
        shards=(),
    )
    write_whole(config.out / DRAFT_NAME, draft.to_bytes())
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
    write_whole(out / MANIFEST_NAME, manifest.to_bytes())
    _tidy(out)
    return open_cache(out)


def _tidy(out: Path) -> None:
    """Take away what only an unfinished cache needs. A kill may come between the manifest and this."""
    (out / DRAFT_NAME).unlink(missing_ok=True)
    tasklist.discard(out)


def _kinds(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {k}" for k, n in sorted(counts.items())) or "nothing to read"
