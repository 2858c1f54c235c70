"""The checker's end of a zygote: start it, have it fork a guest, learn how the guest ended.

The messages are described in `guest/zygote.py`, which this module starts as a process of its own.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys

from evalkit.sandbox.guest.zygote import ENDED, KILL, ORDER, START, WAIT
from evalkit.sandbox.host.guest_exit import GuestExit
from evalkit.sandbox.wire.messages import ChannelError

_START_S = 30.0
"""Longest time for a zygote to start, in seconds."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Variables that keep numpy's libraries to one thread."""
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LC_ALL": "C.UTF-8",
    "LD_BIND_NOW": "1",  # otherwise each fork resolves the same symbols again
    "HOME": "/",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "USER": "nobody",
    "LOGNAME": "nobody",
} | ONE_THREAD
"""The environment of a program: it holds nothing of the user's."""


class Zygote:
    """A running zygote (`guest/zygote.py`) and the socket that commands it."""

    def __init__(
        self,
        *,
        root: str,
        numpy_folder: str,
        libraries: tuple[str, ...] = (),
        import_paths: tuple[str, ...] = (),
    ) -> None:
        """Start it.

        Args:
            root: The folder that holds the evalkit package.
            numpy_folder: The folder that numpy is installed in, or empty for no numpy.
            libraries: Folders of packages that programs may import.
            import_paths: Folders that programs may read and import from.

        Raises:
            ChannelError: It did not start.
        """
        ours, theirs = socket.socketpair()
        start = (
            f"import sys; sys.path.insert(0, {root!r})\nfrom evalkit.sandbox.guest import zygote\n"
            f"sys.path.remove({root!r})\nzygote.main({theirs.fileno()}, numpy_folder={numpy_folder!r}, "
            f"libraries={libraries!r}, import_paths={import_paths!r})"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-s", "-P", "-B", "-c", start],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=_ENVIRONMENT,
        )
        theirs.close()
        ours.settimeout(_START_S)
        self._socket = ours
        try:
            self.layers = json.loads(ours.makefile("rb").readline() or "null")
        except OSError as error:
            raise ChannelError(f"the zygote does not answer ({error})") from None
        if not isinstance(self.layers, list):
            raise ChannelError(f"the zygote did not start ({self.layers or 'it ended'})")

    def run(self, *, cpu_s: int, memory_bytes: int, number: int = 0) -> int:
        """Fork a guest and return the descriptor of the channel to it; call `end` afterwards.

        Args:
            cpu_s: Its CPU time, in seconds.
            memory_bytes: Its address space.
            number: Its number, which no other running guest has.
        """
        ours, theirs = socket.socketpair()
        socket.send_fds(self._socket, [ORDER.pack(START, number, cpu_s, memory_bytes)], [theirs.fileno()])
        theirs.close()
        ours.setblocking(False)
        return ours.detach()

    def end(self, *, wait: bool = False, number: int = 0) -> GuestExit:
        """Kill a guest if it still runs and return how it ended.

        Args:
            wait: Give it a moment to end by itself: a guest that closed its channel may be about to.
            number: The guest's number.

        Raises:
            ChannelError: The zygote is unusable.
        """
        try:
            self._socket.sendall(ORDER.pack(WAIT if wait else KILL, number, 0, 0))
            answer = self._socket.recv(ENDED.size, socket.MSG_WAITALL)
        except OSError as error:
            raise ChannelError(f"the zygote does not answer ({error})") from None
        if len(answer) < ENDED.size:
            raise ChannelError("the zygote ended")
        return GuestExit(*ENDED.unpack(answer))

    def close(self) -> None:
        """End the zygote and wait for it."""
        self._socket.close()
        self.process.wait()
