"""Names of unfinished files, and the removal of those whose process has ended.

Many processes on many machines may write to one directory. A temporary name holds the host and the process id. A
leftover is deleted when its process on this host has ended, or, if it is of another host, after a day without a write.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import time
from pathlib import Path

ABANDONED_S = 86_400.0
"""Seconds without a write after which an unfinished file of another host is deleted. A task takes minutes."""

_serial = itertools.count()
_NAME = re.compile(r"\..+\.([^.]+)-(\d+)-\d+\.part")


def temp_path(path: Path) -> Path:
    """Return a hidden name in the directory of `path` that no other process on any host uses."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{next(_serial)}.part")


def remove_leftovers(folder: Path) -> None:
    """Delete the unfinished files of dead processes in a directory and its subdirectories of the first level."""
    for file in _temp_files(folder):
        with contextlib.suppress(FileNotFoundError):  # another worker cleans up, too
            if is_abandoned(file):
                file.unlink()


def is_abandoned(path: Path) -> bool:
    """Return whether the process that made a temporary file or folder has ended.

    Raises:
        FileNotFoundError: If it is of another host, and missing.
    """
    owner = _NAME.fullmatch(path.name)
    if owner and owner[1] == _host():
        return not Path(f"/proc/{owner[2]}").exists()
    return time.time() - path.stat().st_mtime > ABANDONED_S


def remove_own(folder: Path) -> None:
    """Delete the unfinished files of this process, which an interrupt may have left."""
    owner = f".{_host()}-{os.getpid()}-"
    for file in _temp_files(folder):
        if owner in file.name:
            file.unlink(missing_ok=True)


def _temp_files(folder: Path) -> list[Path]:
    return [*folder.glob(".*.part"), *folder.glob("*/.*.part")]


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())
