"""One trainer per output folder: a lock that ends with its process, and a record of its holder.

The lock is the system's own (flock), so a killed process releases it. The file `run.lock` names the host and the
process, and its modification time is updated every few seconds while they live. A trainer on another host watches that
time, because some network file systems keep locks to one host. The same is done where a file system has no locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from student_train.errors import CheckpointError

if TYPE_CHECKING:  # a process that only takes the lock need not import torch
    from student_train.training.distributed import World

LOCK_NAME = "run.lock"
BEAT_S = 5.0
"""Seconds between updates of the modification time."""
WATCHED_S = 4 * BEAT_S
"""Seconds for which a holder on another host is watched for an update."""
_HELD = {errno.EWOULDBLOCK, errno.EACCES}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def locked(out: Path, world: World, *, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a folder. A collective: the main rank takes it for all.

    Args:
        out: The folder; created where it is missing.
        world: All ranks.
        log: Prints a line where a lock is taken over.

    Raises:
        CheckpointError: On every rank, where another trainer holds the lock or the folder cannot be written.
    """
    lock: _Lock | None = None
    problem = ""
    if world.is_main:
        try:
            lock = _Lock(out, log)
        except CheckpointError as error:
            problem = str(error)
    try:
        problem = world.gather(problem)[0]
        if problem:
            raise CheckpointError(problem)
        yield
    finally:
        if lock is not None:
            lock.release()


class _Lock:
    """A lock that this process holds."""

    def __init__(self, out: Path, log: Callable[[str], None]) -> None:
        self._out, self._path = out, out / LOCK_NAME
        self._made_folder = not out.exists()
        self._ended = threading.Event()
        try:
            out.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
            self._take_over(log)
            self._file.seek(0)
            self._file.truncate()
            self._file.write(json.dumps(_this_process()).encode())
            self._file.flush()
        except OSError as error:
            raise CheckpointError(
                f"{out}: cannot write there ({error.strerror or error}); check the rights and the disk, or name "
                "another --out"
            ) from None
        self._beating = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._beating.start()

    def release(self) -> None:
        """Release the lock and remove its file."""
        self._ended.set()
        self._beating.join()
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._file.close()
        if self._made_folder:
            with contextlib.suppress(OSError):  # the folder is not empty
                self._out.rmdir()

    def _open(self) -> Any:
        """Open the file and lock it. A file that its holder removed meanwhile is created again."""
        while True:
            file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._has_locks = True
            except OSError as error:
                if error.errno in _HELD:
                    holder = _read(file)
                    file.close()
                    raise _taken(self._out, holder) from None
                if error.errno not in _NO_LOCKS:
                    file.close()
                    raise
                self._has_locks = False
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                    return file
            file.close()

    def _take_over(self, log: Callable[[str], None]) -> None:
        """Refuse where an earlier holder is alive although the lock was granted; else log that it is gone."""
        holder = _read(self._file)
        if not self._has_locks:
            log(f"{self._out}: this file system has no locks; make sure that no other student-train uses this folder")
        if not holder:
            return
        same_host = holder.get("host") == socket.gethostname()
        if same_host and not self._has_locks and _is_alive(holder):
            raise _taken(self._out, holder)
        if not same_host and self._is_updated():
            raise _taken(self._out, holder)
        log(f"{self._out}: taking over from {_name(holder)}, which ended without releasing its lock")

    def _is_updated(self) -> bool:
        """Return whether the file's modification time changes while it is watched."""
        before, end = self._path.stat().st_mtime_ns, time.monotonic() + WATCHED_S
        while time.monotonic() < end:
            time.sleep(WATCHED_S / 20)
            if self._path.stat().st_mtime_ns != before:
                return True
        return False

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self._path)


def _this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "process_start": _process_start(os.getpid()),
    }


def _read(file: Any) -> dict[str, Any]:
    """Return the holder of the lock; {} where the file does not name one."""
    try:
        return dict(json.loads(os.pread(file.fileno(), 4096, 0)))
    except (ValueError, TypeError, OSError, RecursionError):
        return {}


def _is_alive(holder: dict[str, Any]) -> bool:
    """Return whether a holder on this host lives. A later process with the same number does not count."""
    start = _process_start(holder.get("pid"))
    return start is not None and start == holder.get("process_start")


def _process_start(pid: Any) -> str | None:
    """Return the start time of a process, in ticks since the system's start; None without such a process."""
    try:
        return Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, ValueError, TypeError, IndexError):
        return None


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')}, started {holder.get('started')}"


def _taken(out: Path, holder: dict[str, Any]) -> CheckpointError:
    name = f" ({_name(holder)})" if holder else ""
    return CheckpointError(
        f"{out}: found another student-train at work in it{name}, expected none; wait for it or stop it, or name "
        "another --out"
    )
