"""Manifest of a dump: the draft that is written before the first shard, and the manifest of the complete cache."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import replace
from pathlib import Path

from shards.format.manifest import MANIFEST_NAME, Manifest, ShardEntry
from shards.format.manifest import Tokenizer as TokenizerInfo
from shards.live import DRAFT_NAME
from shards.model_files.tokenizer_files import write_tokenizer
from shards.read import Cache
from shards.read import open as open_cache
from shards.reports.statistics import measure
from shards.runtime import machine
from shards.storage.atomic import write_atomic
from teacher_dump.engines.registry import describe_engine
from teacher_dump.run.job import DumpJob
from teacher_dump.tasks import task_store

_SETTINGS = ("seed", "max_tokens", "max_documents", "window_tokens", "task_tokens", "relations_rows")


def write_draft(job: DumpJob) -> Manifest:
    """Write the tokenizer and a manifest without shards. From then on, readers can follow the growing cache."""
    engine = {
        **describe_engine(job.engine, job.to_engine_config()),
        "dtype_why": job.dtype.reason,
        "machine": machine.describe(),
        "threads": machine.num_threads().number,
        "log_probs": "natural log of the softmax of the raw logits over vocab_size ids, computed in float32, T = 1",
    }
    draft = Manifest(
        layout=job.layout,
        teacher=job.model.teacher,
        tokenizer=TokenizerInfo(
            fingerprint=job.identity["tokenizer"],
            vocab_size=max(job.model.rules.token_bytes()) + 1,
            prefix_tokens=job.model.prefix_tokens,
        ),
        engine=engine,
        corpus={
            "source": job.identity["data"],
            **dict(sorted(job.counts.items())),
            "filters": job.source.filters(),
            **job.source.settings(),
            "dropped_sha256": job.dropped.sha256,
        },
        settings={name: job.identity[name] for name in _SETTINGS if name in job.identity},
        code={"teacherless": importlib.metadata.version("teacherless"), "python": platform.python_version()},
        files=(job.dropped, *write_tokenizer(job.model.folder, job.config.out)),
        shards=(),
        writer=job.writer,
    )
    write_atomic(job.config.out / DRAFT_NAME, draft.to_bytes())
    return draft


def complete_cache(out: Path, draft: Manifest, entries: list[ShardEntry]) -> Cache:
    """Write the manifest after the last task is finished, and return the complete cache."""
    manifest = replace(draft, shards=tuple(entries))
    if (out / MANIFEST_NAME).exists():  # of another worker that saw the last task finish, or of an earlier run
        cache = open_cache(out)
        if cache.manifest.shards == manifest.shards:
            remove_unfinished_files(out)
            return cache
    manifest = replace(manifest, report=measure(Cache.of(out, manifest)))
    write_atomic(out / MANIFEST_NAME, manifest.to_bytes())
    remove_unfinished_files(out)
    return open_cache(out)


def remove_unfinished_files(out: Path) -> None:
    """Delete files that only an unfinished cache needs. A process may be killed after the manifest and before this."""
    if (out / DRAFT_NAME).exists():  # unlink alone would fail on a read-only disk
        (out / DRAFT_NAME).unlink(missing_ok=True)
    task_store.discard(out)
