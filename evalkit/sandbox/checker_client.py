"""The main process' end of a checker: start it, exchange requests and answers, end it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from evalkit.sandbox.guest.isolation import Layer
from evalkit.sandbox.verdict import CHECKER_MEMORY_BYTES
from evalkit.sandbox.wire.messages import ChannelError, wait_ready

_START_S = 60.0
"""Longest time for a checker to start, in seconds."""


class CheckerProcess:
    """A running checker (`host/checker.py`). One thread at a time uses it."""

    def __init__(self, *, libraries: tuple[str, ...] = (), import_paths: tuple[str, ...] = ()) -> None:
        """Start it and wait until it is ready.

        Args:
            libraries: Folders of packages that programs may import.
            import_paths: Folders that programs may read and import from.

        Raises:
            ChannelError, DeadlineError, OSError: It does not start.
        """
        root = str(Path(__file__).resolve().parents[2])
        numpy = importlib.util.find_spec("numpy")
        numpy_folder = str(Path(numpy.origin).parent.parent) if numpy and numpy.origin else ""
        start = (
            f"import sys; sys.path.insert(0, {root!r})\nfrom evalkit.sandbox.host import checker\n"
            f"sys.path.remove({root!r})\nchecker.main(root={root!r}, numpy_folder={numpy_folder!r}, "
            f"memory_bytes={CHECKER_MEMORY_BYTES}, "
            f"libraries={libraries!r}, import_paths={import_paths!r})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-s", "-P", "-B", "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", "")},
            start_new_session=True,  # Ctrl-C is for evalkit, which then closes its checkers
        )
        self._buffer = b""
        try:
            ready = self._receive(time.monotonic() + _START_S)
            if "failed" in ready:
                raise ChannelError(ready["failed"])
            self.layers = [Layer(**layer) for layer in ready["layers"]]
        except BaseException:
            self.close(kill=True)
            raise

    def exchange(self, request: dict[str, Any], *, deadline: float) -> dict[str, Any]:
        """Send a request and return the answer.

        Args:
            request: See `host/checker.py`.
            deadline: Latest time of the answer, in `time.monotonic` seconds.

        Raises:
            ChannelError, DeadlineError: The checker is unusable.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ChannelError(f"the checker ended ({error.strerror})") from None
        return self._receive(deadline)

    def kill(self) -> None:
        """Kill it and the processes that it started, from any thread; the thread that uses it closes it then."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self, *, kill: bool = False) -> None:
        """End it by closing its input, or by force."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if kill:
            self.kill()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _receive(self, deadline: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            wait_ready(descriptor, write=False, deadline=deadline)
            part = os.read(descriptor, 1 << 16)
            if not part:
                raise ChannelError("the checker ended")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message
