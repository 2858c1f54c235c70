"""End a local Ray cluster with its driver, also when the driver is killed.

Ray ends its processes when the driver ends by itself. After SIGKILL some of them, such as the dashboard agent, run on
for longer than the five seconds that a command promises. A process of its own therefore waits for the driver to end,
and kills the driver's descendants that are left.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shards.runtime.lifetime import ProcessIdentity

if TYPE_CHECKING:
    import psutil

POLL_S = 0.5
"""Seconds between two looks at the driver and its descendants."""
_ROUNDS = 3
"""Passes over the descendants: a process may start another one while it is being killed."""


@contextlib.contextmanager
def cluster_watchdog() -> Iterator[None]:
    """Run the watchdog of this process while the block runs."""
    driver = ProcessIdentity.of(os.getpid())
    root = str(Path(__file__).resolve().parents[2])
    program = (
        f"import sys; sys.path.insert(0, {root!r}); from teacher_dump.run.cluster_watchdog import watch; "
        f"watch(pid={driver.pid}, started={driver.started!r})"
    )
    # A session of its own: Ctrl-C on the terminal does not reach it before the driver has ended.
    watchdog = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        watchdog.terminate()
        watchdog.wait()


def watch(*, pid: int, started: str) -> None:
    """Wait until a process ends, and kill its descendants that still run.

    Args:
        pid: Process id of the driver.
        started: `ProcessIdentity.started` of the driver.
    """
    import psutil

    driver = ProcessIdentity(pid, started)
    descendants: dict[int, psutil.Process] = {}
    while driver.is_alive():
        _note_descendants(pid, descendants)
        time.sleep(POLL_S)
    for _ in range(_ROUNDS):
        for known in list(descendants):
            _note_descendants(known, descendants)
        for process in descendants.values():
            with contextlib.suppress(psutil.Error):
                process.kill()  # psutil checks that the id still belongs to the process
        time.sleep(POLL_S / _ROUNDS)


def _note_descendants(pid: int, descendants: dict[int, psutil.Process]) -> None:
    """Add the descendants of a process, this one left out."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            if child.pid != os.getpid():
                descendants.setdefault(child.pid, child)
