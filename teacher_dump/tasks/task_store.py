"""Task list on disk, beside the cache, so that a corpus is read, filtered and cut once.

    tasks/windows       the tasks' windows, one compressed block after another
    tasks/index.json    counts, and each task's block with its digest; written last, so it marks a complete list

A worker that finds no list writes it; the list is the same whichever worker does. Other workers and later starts read
the blocks of their own tasks only, one at a time. The list holds the corpus's text, so it is deleted when the cache is
complete.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zstandard

from shards.errors import CorruptShardError
from shards.format.chunk import RowInfo
from shards.format.manifest import FileEntry, Writer
from shards.format.schema import canonical_json
from shards.storage.atomic import atomic_writer, write_atomic
from teacher_dump.corpus.drop_log import DropLog
from teacher_dump.errors import DumpError
from teacher_dump.tasks.task import Task
from teacher_dump.tasks.windowing import Window

TASKS_FOLDER = "tasks"
_INDEX, _WINDOWS = "index.json", "windows"
_SCHEMA = pa.schema(
    [
        ("document", pa.string()),
        ("window", pa.int64()),
        ("byte_start", pa.int64()),
        ("byte_end", pa.int64()),
        ("source", pa.string()),
        ("path", pa.string()),
        ("licence", pa.string()),
        ("context", pa.int64()),
        ("messages", pa.string()),
        ("tokens", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskList:
    """The tasks in order; their windows stay on disk."""

    tasks: tuple[Task, ...]
    counts: dict[str, int]
    """Documents by filter, and cuts by kind."""
    dropped: FileEntry
    """The list of dropped documents, see `corpus.drop_log`."""
    writer: Writer | None = None
    """The model that wrote the responses; None for documents, and for responses that the corpus has."""


@dataclass(kw_only=True, slots=True)
class CorpusFacts:
    """What is known about a corpus after its last window."""

    counts: Counter[str] = field(default_factory=Counter)
    """Documents or answers by filter, and cuts by kind."""
    drop_log: DropLog = field(default_factory=DropLog)
    writer: Writer | None = None


def save(out: Path, fingerprint: str, tasks: Iterable[Task], corpus: CorpusFacts) -> int:
    """Write the task list while the tasks are generated; write no list if there is no task.

    Args:
        out: Folder of the cache.
        fingerprint: Digest of the dump's identity.
        tasks: The tasks.
        corpus: Read after the last task.

    Returns:
        The number of tasks.

    Raises:
        StoreError: The disk is full.
        DumpError: The corpus cannot be read.
    """
    readable_tasks = _named_read_errors(tasks)
    first = next(readable_tasks, None)
    if first is None:
        return 0
    blocks: list[list[Any]] = []
    with atomic_writer(out / TASKS_FOLDER / _WINDOWS) as file:
        for task in itertools.chain([first], readable_tasks):
            block = _pack(task.windows)
            blocks.append([task.name, task.num_tokens, file.tell(), len(block), hashlib.sha256(block).hexdigest()])
            file.write(block)
    index = {
        "fingerprint": fingerprint,
        "counts": corpus.counts,
        "dropped": asdict(corpus.drop_log.save(out)),
        "writer": None if corpus.writer is None else asdict(corpus.writer),
        "tasks": blocks,
    }
    write_atomic(out / TASKS_FOLDER / _INDEX, canonical_json(index))
    return len(blocks)


def load(out: Path, fingerprint: str) -> TaskList | None:
    """Return the task list, or None if it is missing, damaged or of another fingerprint."""
    try:
        index = json.loads((out / TASKS_FOLDER / _INDEX).read_bytes())
        if index["fingerprint"] != fingerprint:
            return None
        path = out / TASKS_FOLDER / _WINDOWS
        tasks = tuple(
            Task(name=name, num_tokens=num_tokens, windows=_WindowBlock(path, offset, length, sha256))
            for name, num_tokens, offset, length, sha256 in index["tasks"]
        )
        return TaskList(
            tasks=tasks,
            counts=index["counts"],
            dropped=FileEntry(**index["dropped"]),
            writer=None if index["writer"] is None else Writer(**index["writer"]),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def exists(out: Path) -> bool:
    """Return whether a folder holds a task list of any fingerprint."""
    return (out / TASKS_FOLDER / _INDEX).exists()


def discard(out: Path) -> None:
    """Delete the task list."""
    shutil.rmtree(out / TASKS_FOLDER, ignore_errors=True)


def _named_read_errors(tasks: Iterable[Task]) -> Iterator[Task]:
    """Yield the tasks. An OSError while they are generated comes from reading the corpus, not from writing the list."""
    try:
        yield from tasks
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DumpError(
                f"{tempfile.gettempdir()}: no space left for the scratch files that order the corpus; free some space, "
                "or set TMPDIR to a folder with more"
            ) from None
        name = error.filename if isinstance(error.filename, str) else "--data"
        raise DumpError(
            f"{name}: cannot read the corpus ({error.strerror or error}); check the file and your permissions"
        ) from None


@dataclass(frozen=True, slots=True)
class _WindowBlock:
    """A task's windows on disk. Each iteration reads the block and checks its digest."""

    path: Path
    offset: int
    length: int
    sha256: str

    def __iter__(self) -> Iterator[Window]:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            raw = file.read(self.length)
        if hashlib.sha256(raw).hexdigest() != self.sha256:
            raise CorruptShardError(
                f"{self.path}: the digest of the bytes from {self.offset} differs from the task list; delete the "
                f"folder {self.path.parent} and run again: finished tasks are kept"
            )
        batch = pa.ipc.read_record_batch(pa.py_buffer(zstandard.decompress(raw)), _SCHEMA)
        starts = batch.column("tokens").offsets.to_numpy()
        tokens = batch.column("tokens").values.to_numpy()
        fields = [f.name for f in _SCHEMA if f.name != "tokens"]
        for r, values in enumerate(zip(*(batch.column(name).to_pylist() for name in fields), strict=True)):
            info = RowInfo(**dict(zip(fields, values, strict=True)))
            # A copy, because torch.from_numpy needs a writable array.
            yield Window(info=info, tokens=tokens[starts[r] : starts[r + 1]].copy())


def _pack(windows: Iterable[Window]) -> bytes:
    """Return windows as one compressed Arrow record batch."""
    windows = list(windows)
    infos = [asdict(w.info) for w in windows]
    columns: list[pa.Array] = [pa.array([i[f.name] for i in infos], f.type) for f in _SCHEMA if f.name != "tokens"]
    starts = np.concatenate(([0], np.cumsum([len(w.tokens) for w in windows]))).astype(np.int32)
    columns.append(pa.ListArray.from_arrays(starts, np.concatenate([w.tokens for w in windows]), type=_SCHEMA[-1].type))
    batch = pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)
    return zstandard.compress(batch.serialize().to_pybytes())
