"""Find the processes that a test started, and those that still run; limit what this process may write."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path


def descendants() -> set[str]:
    """Return the descendants of this process, as pid and start time."""
    parents: dict[str, str] = {}
    starts: dict[str, str] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            parents[path.parent.name], starts[path.parent.name] = fields[1], fields[19]
    family = {str(os.getpid())}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return {f"{pid} {starts[pid]}" for pid in family - {str(os.getpid())}}


def alive(processes: set[str]) -> set[str]:
    """Return those of `processes` that still run."""
    left = set()
    for process in processes:
        pid, start = process.split()
        with contextlib.suppress(OSError):
            if Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[19] == start:
                left.add(process)
    return left


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Refuse to let a file of this process grow beyond `size` bytes, as a full disk would."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
