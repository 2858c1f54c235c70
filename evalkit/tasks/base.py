"""Problems and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from evalkit.sandbox.verdict import CPU_S, EVALPLUS_CPU_S, EVALPLUS_MEMORY_BYTES, MEMORY_BYTES, CheckJob


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One task of a benchmark."""

    task_id: str
    """The benchmark's own id, such as `HumanEval/0` or `Mbpp/11`."""
    prompt: str
    """What comes before a completion in the program, word for word."""
    description: str = ""
    """The task in words, for benchmarks whose prompts are built from it."""
    shown_tests: tuple[str, ...] = ()
    """Assertions that a protocol may show to the model."""
    entry_points: tuple[str, ...]
    """Functions that the checks call."""
    prelude: str
    """Trusted source run before the checks."""
    test: str
    """Trusted source of the checks."""
    reference: str
    """The benchmark's own solution, a complete program."""
    inline: bool = False
    """The checks pass objects, so they can only run beside the program."""
    inputs: dict[str, Any] | None = None
    """EvalPlus' inputs, expected values and tolerance; see `evalkit/sandbox/evalplus/check.py`."""

    def job(self, program: str, *, cpu_s: float = CPU_S) -> CheckJob:
        """Return the work order for `program`, a complete module, within `cpu_s` CPU seconds.

        On EvalPlus' inputs `cpu_s` does not count: each call has its own limit, from the reference's time.
        """
        return CheckJob(
            program=program,
            entry_points=self.entry_points,
            prelude=self.prelude,
            test=self.test,
            inline=self.inline,
            inputs=self.inputs,
            cpu_s=cpu_s if self.inputs is None else EVALPLUS_CPU_S,
            memory_bytes=MEMORY_BYTES if self.inputs is None else EVALPLUS_MEMORY_BYTES,
        )

    def reference_job(self, *, cpu_s: float) -> CheckJob:
        """Return the work order for the reference, within `cpu_s` CPU seconds.

        On EvalPlus' inputs the judge itself runs the reference on all of them. As a program it only runs on those that
        take little time: that shows that programs can be judged here.
        """
        job = self.job(self.reference, cpu_s=cpu_s)
        return job if self.inputs is None else replace(job, inputs=self.inputs | {"quick": True})


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """The problems of one benchmark, in its own order, and where they came from."""

    name: str
    problems: tuple[Problem, ...]
    source: str
    sha256: str
    """Digest of the file that was read."""
    others: frozenset[str] = frozenset()
    """Ids of problems that a larger or an older form of this benchmark has, and this one has not."""

    def as_dict(self) -> dict[str, Any]:
        return {"source": self.source, "sha256": self.sha256, "problems": len(self.problems)}
