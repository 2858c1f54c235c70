"""End child processes with the process that started them, however it ends.

After `bind_children`, every process that `multiprocessing` spawns ends with its parent and with the root, the first
process that bound its children. The children of such a process are bound, too. A child is bound before it imports
anything heavy, so that a parent that is killed while an engine loads leaves no process. Two mechanisms are used:

- The kernel sends SIGKILL when the thread that spawned the child ends (`PR_SET_PDEATHSIG`, prctl(2)). It is set only
  if that was the main thread.
- A thread of the child waits on file descriptors of the parent and of the root (pidfd_open(2)). If the system has
  none, it polls twice a second.

A child ends only itself. Not covered: children that are forked without multiprocessing's spawn method, and executed
programs.
"""

from __future__ import annotations

import ctypes
import multiprocessing.spawn
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shards.runtime.imports import quicken_imports

POLL_S = 0.5
"""Seconds between two polls if pidfd_open(2) is unavailable."""
_PR_SET_PDEATHSIG = 1
_SPAWN = "from multiprocessing.spawn import spawn_main"
"""Beginning of the program that multiprocessing runs in a child."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, identified uniquely until the machine restarts."""

    pid: int
    started: str
    """Clock ticks from the boot to its start, "" without /proc."""

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Return the identity of a process. `started` is "" if there is no such process."""
        return cls(pid, _started(pid))

    def is_alive(self) -> bool:
        """Return whether the process exists and is not a zombie."""
        if self.started:
            return _started(self.pid) == self.started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


@dataclass(slots=True)
class _Family:
    """State that this process passes to its children."""

    root: ProcessIdentity | None = None
    original: Callable[..., list[str]] | None = None


_family = _Family()


def bind_children(root: ProcessIdentity | None = None) -> None:
    """Make the processes that multiprocessing spawns end with this process and the root. Idempotent.

    Args:
        root: The first process that bound its children; by default this one.
    """
    if _family.original is None:
        _family.root = root or ProcessIdentity.of(os.getpid())
        _family.original = multiprocessing.spawn.get_command_line
        multiprocessing.spawn.get_command_line = _command_line


def follow(*, parent: int, by_kernel: bool, root_pid: int, root_started: str) -> None:
    """End this process when its parent or the root ends, and bind its own children. A child calls it first.

    Imports of the child are those of a command (`shards.runtime.imports`).

    Args:
        parent: Process id of the parent.
        by_kernel: Whether the parent's main thread spawned this process, so that the kernel may end it.
        root_pid: Process id of the root.
        root_started: `ProcessIdentity.started` of the root.
    """
    if by_kernel and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    root = ProcessIdentity(root_pid, root_started)
    leaders = {ProcessIdentity.of(parent), root}
    descriptors = [_descriptor(leader) for leader in leaders]
    if os.getppid() != parent or not root.is_alive():  # it ended before it could be watched
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(target=_wait, args=(leaders, descriptors), name="lifetime", daemon=True).start()
    bind_children(root)
    quicken_imports()


def _command_line(**options: object) -> list[str]:
    """Return multiprocessing's command line of a child, with a call of `follow` first."""
    assert _family.original is not None
    assert _family.root is not None
    by_kernel = threading.current_thread() is threading.main_thread()
    root = _family.root
    follow_first = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); "
        f"from shards.runtime.lifetime import follow; "
        f"follow(parent={os.getpid()}, by_kernel={by_kernel}, root_pid={root.pid}, root_started={root.started!r}); "
    )
    words = _family.original(**options)  # the first is the interpreter's path, as bytes
    return [follow_first + word if str(word).startswith(_SPAWN) else word for word in words]


def _wait(leaders: set[ProcessIdentity], descriptors: list[int | None]) -> None:
    """Wait until the first leader ends, and end this process."""
    watched = [d for d in descriptors if d is not None]
    if len(watched) == len(descriptors):
        poll = select.poll()
        for descriptor in watched:
            poll.register(descriptor, select.POLLIN)
        poll.poll()
    else:
        while all(leader.is_alive() for leader in leaders):
            time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _descriptor(leader: ProcessIdentity) -> int | None:
    """Return a descriptor that becomes readable when the process ends, None if the system has none."""
    try:
        return os.pidfd_open(leader.pid)
    except (AttributeError, OSError):
        return None


def _started(pid: int) -> str:
    """Return field 22 of /proc/PID/stat (proc(5)), "" if there is no such process or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]
