"""Would a verdict hold here? Tries each layer of confinement and a handful of known programs."""

from __future__ import annotations

from dataclasses import dataclass

from evalkit.sandbox.guest.isolation import Layer
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.verdict import CheckJob, Verdict

_TRIALS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("a right answer", "def f(x): return x + 1", ("pass",)),
    ("a wrong answer", "def f(x): return x", ("wrong",)),
    ("reading /etc/passwd", "def f(x): return open('/etc/passwd') and x + 1", ("sandbox_denied",)),
    ("writing to /tmp", "def f(x): return open('/tmp/evalkit-doctor', 'w') and x + 1", ("sandbox_denied",)),
    ("a connection", "import socket\ndef f(x): return socket.socket() and x + 1", ("sandbox_denied",)),
    ("a child process", "import os\ndef f(x): return os.fork() * 0 + x + 1", ("sandbox_denied",)),
    ("4 GB of memory", "def f(x): return len(bytearray(4 << 30)) * 0 + x + 1", ("oom",)),
    ("an endless loop", "while True: pass", ("timeout_cpu",)),
    ("leaving with status 0", "import os\nos._exit(0)", ("exited",)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """What was found on this machine."""

    layers: tuple[Layer, ...]
    trials: tuple[tuple[str, Verdict, bool], ...]
    """What was tried, what came out, and whether that is what should."""

    @property
    def sound(self) -> bool:
        return all(fine for _, _, fine in self.trials)


def examine() -> Examination:
    """Start the executor, ask for its layers, and run the trials.

    Raises:
        EvalError: the executor does not start.
    """
    with Pool(workers=1) as pool:
        trials = []
        for what, program, expected in _TRIALS:
            job = CheckJob(program=program, entry_points=("f",), prelude="", test="assert f(1) == 2", cpu_s=1.0)
            verdict = pool.check_alone(job)
            trials.append((what, verdict, verdict.outcome in expected))
        return Examination(layers=tuple(pool.layers), trials=tuple(trials))
