"""Child processes that end with the process that started them, however it ends.

`bind_children` makes every process that `multiprocessing` spawns from then on follow its parent, and so on down the
tree. A child follows before it imports anything heavy, so that a parent that is killed while an engine loads leaves
nothing behind. Two mechanisms:

- the kernel sends SIGKILL when the parent's thread ends (`PR_SET_PDEATHSIG`, prctl(2)). It needs no cooperation of the
  child, but it watches the thread that spawned: it is set only where that was the main thread;
- a thread waits on file descriptors of the parent and of the root, the first process that bound its children
  (pidfd_open(2)). Where there is none, it asks twice a second whether they live.

A child never ends another process, only itself. Not covered: children that are forked without multiprocessing's spawn
method, and programs that are executed.
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

POLL_S = 0.5
"""Seconds between two looks at processes where pidfd_open(2) is unavailable."""
_PR_SET_PDEATHSIG = 1
_SPAWN = "from multiprocessing.spawn import spawn_main"
"""How multiprocessing's program for a child begins."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that no other can be taken for, as long as the machine runs."""

    pid: int
    started: str
    """Clock ticks from the boot to its start; "" where there is no /proc."""

    @classmethod
    def of(cls, pid: int) -> Identity:
        """Return the identity of a process; `started` is "" where there is none."""
        return cls(pid, _started(pid))

    def is_alive(self) -> bool:
        """Return whether the process is still there. A zombie is not."""
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
    """What this process passes on to its children."""

    root: Identity | None = None
    original: Callable[..., list[str]] | None = None


_family = _Family()


def bind_children(root: Identity | None = None) -> None:
    """Make processes that multiprocessing spawns from here on follow this process and the root. Idempotent.

    Args:
        root: The process at the top; this one where None.
    """
    if _family.original is None:
        _family.root = root or Identity.of(os.getpid())
        _family.original = multiprocessing.spawn.get_command_line
        multiprocessing.spawn.get_command_line = _command_line


def follow(*, parent: int, by_kernel: bool, root_pid: int, root_started: str) -> None:
    """End this process when its parent or the root ends, and bind its own children. Called first in a child.

    Args:
        parent: Process id of the parent.
        by_kernel: Whether the parent's main thread spawned this process, so that the kernel may watch it.
        root_pid: Process id of the root.
        root_started: `Identity.started` of the root.
    """
    if by_kernel and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    root = Identity(root_pid, root_started)
    leaders = {Identity.of(parent), root}
    descriptors = [_descriptor(leader) for leader in leaders]
    if os.getppid() != parent or not root.is_alive():  # it ended before it was watched
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(target=_wait, args=(leaders, descriptors), name="lifetime", daemon=True).start()
    bind_children(root)


def _command_line(**options: object) -> list[str]:
    """Return multiprocessing's command line of a child, with `follow` before everything else."""
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


def _wait(leaders: set[Identity], descriptors: list[int | None]) -> None:
    """Wait for the first leader to end, and end this process at once."""
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


def _descriptor(leader: Identity) -> int | None:
    """Return a descriptor that becomes readable when the process ends, None where the system has none."""
    try:
        return os.pidfd_open(leader.pid)
    except (AttributeError, OSError):
        return None


def _started(pid: int) -> str:
    """Return field 22 of /proc/PID/stat, "" of a process that is not there or has ended (proc(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]
