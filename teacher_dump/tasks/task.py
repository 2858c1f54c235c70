"""Tasks: groups of windows, each of which becomes one shard.

A task is named by its place in the order and a digest of its inputs; its name is the shard's file name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from teacher_dump.tasks.windowing import Window

SHUFFLE_WINDOWS = 32_768
"""Windows that are shuffled together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """The windows of one shard."""

    name: str
    """File name of the shard."""
    num_tokens: int
    """Tokens of the windows, prefixes and contexts included."""
    windows: Iterable[Window]
    """May be read from disk on each iteration."""


def group_into_tasks(
    windows: Iterable[Window], *, task_tokens: int, fingerprint: str, max_tokens: int | None = None
) -> Iterator[Task]:
    """Yield tasks of about `task_tokens` tokens each, a pure function of the arguments.

    Args:
        windows: The windows, in order. A window without a token after its context is skipped: it has no label.
        task_tokens: A task ends with the window that reaches this number of tokens.
        fingerprint: Digest of the dump's identity.
        max_tokens: The last task ends with the window that reaches this number of tokens in total.
    """
    group: list[Window] = []
    group_tokens = total_tokens = number = 0
    for window in windows:
        if not len(window.labels):
            continue
        group.append(window)
        group_tokens += len(window.tokens)
        total_tokens += len(window.tokens)
        is_last = max_tokens is not None and total_tokens >= max_tokens
        if group_tokens >= task_tokens or is_last:
            yield _task(number, group, fingerprint)
            group, group_tokens, number = [], 0, number + 1
        if is_last:
            return
    if group:
        yield _task(number, group, fingerprint)


def shuffle_windows(windows: Iterable[Window], seed: int) -> Iterator[Window]:
    """Yield windows ordered by a seeded hash of document and window number, in blocks of SHUFFLE_WINDOWS.

    A chunk is then a sample of many documents.
    """
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
