"""What is a half-written file called, and who may delete it?

Many processes on many machines write into one folder. A temporary name says whose it is: a leftover is deleted once
its process is known to be dead, or, on another machine, once nobody has touched it for a day.
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
"""A file of another machine that nobody wrote to for so long is a leftover: a task takes minutes."""

_serial = itertools.count()
_NAME = re.compile(r"\..+\.([^.]+)-(\d+)-\d+\.part")


def temporary_beside(path: Path) -> Path:
    """Return a hidden name beside `path` that no other process, here or elsewhere, uses."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{next(_serial)}.part")


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of dead processes in a folder and the folders in it."""
    for file in _temporaries(folder):
        with contextlib.suppress(FileNotFoundError):  # another worker cleans up, too
            owner = _NAME.fullmatch(file.name)
            if owner and owner[1] == _host():
                dead = not Path(f"/proc/{owner[2]}").exists()
            else:
                dead = time.time() - file.stat().st_mtime > ABANDONED_S
            if dead:
                file.unlink()


def remove_own(folder: Path) -> None:
    """Delete the temporary files of this process: what an interrupt at an unlucky moment left."""
    mine = f".{_host()}-{os.getpid()}-"
    for file in _temporaries(folder):
        if mine in file.name:
            file.unlink(missing_ok=True)


def _temporaries(folder: Path) -> list[Path]:
    return [*folder.glob(".*.part"), *folder.glob("*/.*.part")]


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())
