"""Examine the sandbox on this machine: its layers, and trials with programs whose outcome is known."""

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
"""(name, program, expected outcomes) of each trial."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One program and its verdict."""

    name: str
    verdict: Verdict
    as_expected: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """State of the sandbox on this machine."""

    layers: tuple[Layer, ...]
    trials: tuple[Trial, ...]

    @property
    def sound(self) -> bool:
        """Whether all trials ended as expected."""
        return all(trial.as_expected for trial in self.trials)


def examine() -> Examination:
    """Start the sandbox and run the trials.

    Raises:
        EvalError: The sandbox does not start.
    """
    with Pool(workers=1) as pool:
        trials = []
        for name, program, expected in _TRIALS:
            job = CheckJob(program=program, entry_points=("f",), prelude="", test="assert f(1) == 2", cpu_s=1.0)
            verdict = pool.check_alone(job)
            trials.append(Trial(name=name, verdict=verdict, as_expected=verdict.outcome in expected))
        return Examination(layers=tuple(pool.layers), trials=tuple(trials))
