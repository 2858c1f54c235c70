"""The judge's end of a zygote: start it, have it fork a program, learn how that ended.

The messages are described in `zygote.py`, which this module starts as a process of its own.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import Any

from evalkit.sandbox.guest.zygote import ENDED, KILL, START, WAIT
from evalkit.sandbox.wire.values import ChannelError

_START_S = 30.0
"""Longest time for a zygote to start, in seconds."""
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LC_ALL": "C.UTF-8",
    "LD_BIND_NOW": "1",  # or each fork resolves the same symbols anew
    "HOME": "/",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "USER": "nobody",
    "LOGNAME": "nobody",
}
"""What a program sees: nothing of the user's."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""What keeps numpy's libraries to one thread."""


class Zygote:
    """A running zygote (`zygote.py`) and the socket that commands it."""

    def __init__(self, *, root: str, numpy_folder: str) -> None:
        """Start it; `root` is the folder that holds the evalkit package.

        Raises:
            ChannelError: it did not come up.
        """
        here, there = socket.socketpair()
        start = (
            f"import sys; sys.path.insert(0, {root!r})\nfrom evalkit.sandbox.guest import zygote\n"
            f"sys.path.remove({root!r})\nzygote.main({there.fileno()}, numpy_folder={numpy_folder!r})"
        )
        environment = _ENVIRONMENT | ONE_THREAD
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-s", "-P", "-B", "-c", start],
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
        )
        there.close()
        here.settimeout(_START_S)
        self._socket = here
        try:
            self.layers = json.loads(here.makefile("rb").readline() or "null")
        except OSError as error:
            raise ChannelError(f"the zygote does not answer ({error})") from None
        if not isinstance(self.layers, list):
            raise ChannelError(f"the zygote did not start ({self.layers or 'it ended'})")

    def run(self, *, cpu_s: int, memory_bytes: int) -> int:
        """Fork a program and return the descriptor of the channel to it; end it with `end`."""
        here, there = socket.socketpair()
        socket.send_fds(self._socket, [START.pack(cpu_s, memory_bytes)], [there.fileno()])
        there.close()
        here.setblocking(False)
        return here.detach()

    def end(self, *, wait: bool = False) -> dict[str, Any]:
        """Kill the program if it still runs; return how it ended, by the names of `zygote.ENDED`'s fields.

        With `wait` it gets a moment to end by itself: a program that closed its channel may be about to.

        Raises:
            ChannelError: the zygote is of no more use.
        """
        try:
            self._socket.sendall(WAIT if wait else KILL)
            answer = self._socket.recv(ENDED.size, socket.MSG_WAITALL)
        except OSError as error:
            raise ChannelError(f"the zygote does not answer ({error})") from None
        if len(answer) < ENDED.size:
            raise ChannelError("the zygote ended")
        return dict(zip(("status", "cpu_s", "by_itself", "memory_bytes", "refused"), ENDED.unpack(answer), strict=True))

    def close(self) -> None:
        self._socket.close()
        self.process.wait()
