"""Which work exists? Windows become tasks; a task is named by its inputs and its name is its shard's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from teacher_dump.tasks.windowing import Window

SHUFFLE_WINDOWS = 32_768
"""Windows that are shuffled at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A shard to be."""

    name: str
    """File name: place in the order, and digest of what goes in."""
    num_tokens: int
    """Prefix tokens included."""
    windows: Iterable[Window]
    """May be read from disk each time."""


def tasks(
    windows: Iterable[Window], *, task_tokens: int, fingerprint: str, max_tokens: int | None = None
) -> Iterator[Task]:
    """Yield tasks of about `task_tokens` tokens each, a pure function of the arguments."""
    group: list[Window] = []
    in_group = total = number = 0
    for window in windows:
        if len(window.tokens) < 2:
            continue
        group.append(window)
        in_group += len(window.tokens)
        total += len(window.tokens)
        full = max_tokens is not None and total >= max_tokens
        if in_group >= task_tokens or full:
            yield _task(number, group, fingerprint)
            group, in_group, number = [], 0, number + 1
        if full:
            return
    if group:
        yield _task(number, group, fingerprint)


def shuffled(windows: Iterable[Window], seed: int) -> Iterator[Window]:
    """Yield windows by a seeded hash of document and number, so that a chunk is a sample of many documents."""
    windows = iter(windows)
    while block := list(islice(windows, SHUFFLE_WINDOWS)):
        block.sort(key=lambda w: hashlib.sha256(f"{seed}/{w.info.document}/{w.info.window}".encode()).digest())
        yield from block


def _task(number: int, windows: list[Window], fingerprint: str) -> Task:
    digest = hashlib.sha256(fingerprint.encode())
    for window in windows:
        digest.update(f"{window.info.document} {window.info.window} {len(window.tokens)}\n".encode())
    return Task(
        name=f"{number:06d}-{digest.hexdigest()[:12]}.arrow",
        num_tokens=sum(len(w.tokens) for w in windows),
        windows=tuple(windows),
    )
