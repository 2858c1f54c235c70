"""Problems and benchmarks: what a model is shown, and what checks its programs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evalkit.sandbox.verdict import CPU_S, EVALPLUS_CPU_S, EVALPLUS_MEMORY_BYTES, MEMORY_BYTES, CheckJob


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One task of a benchmark."""

    task_id: str
    """The benchmark's own id, such as `HumanEval/0` or `Mbpp/11`."""
    prompt: str
    """Text that precedes a completion in the program, word for word."""
    description: str = ""
    """The task in words, for benchmarks whose prompts are built from it."""
    shown_tests: tuple[str, ...] = ()
    """Assertions that a protocol may show to the model."""
    entry_points: tuple[str, ...]
    """Functions that the checks call."""
    prelude: str
    """Trusted source that runs before the checks."""
    test: str
    """Trusted source of the checks."""
    reference: str
    """The benchmark's own solution, a complete program."""
    inline: bool = False
    """The checks pass objects of the program's classes, so they must run in its interpreter."""
    inputs: dict[str, Any] | None = None
    """EvalPlus inputs, expected values and tolerance; see `evalkit/sandbox/evalplus/check.py`."""
    pages: tuple[str, ...] = ()
    """Names of the benchmark's library that the reference uses, such as `library.module.function`: the pages of its
    documentation that a solution needs. None for problems without a library."""

    def job(self, program: str, *, cpu_s: float = CPU_S) -> CheckJob:
        """Return the job that checks a program.

        Args:
            program: A complete module.
            cpu_s: CPU limit in seconds. Ignored for EvalPlus inputs: each call has its own limit, derived from the
                reference's time.
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
        """Return the job that checks the reference within `cpu_s` CPU seconds.

        For EvalPlus inputs the checker itself runs the reference on all inputs. As a program the reference runs only
        on the quick ones, which shows that programs can be checked on this machine.
        """
        job = self.job(self.reference, cpu_s=cpu_s)
        return job if self.inputs is None else replace(job, inputs=self.inputs | {"quick": True})


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """The problems of one benchmark, in its own order, and their source."""

    name: str
    """Name that `--tasks` takes, such as `mbpp-sanitized`."""
    problems: tuple[Problem, ...]
    source: str
    """Title of the release and name of the file."""
    sha256: str
    """Digest of the file that was read."""
    excluded_ids: frozenset[str] = frozenset()
    """Ids of problems that only a larger or older form of this benchmark has; samples of them are left out."""
    is_part: bool = False
    """The problems are a range of a benchmark, such as `mbpp:train`: the range of a protocol does not apply."""
    library: Path | None = None
    """Folder of a package that programs import; None for benchmarks that need the standard library only."""

    @property
    def libraries(self) -> tuple[Path, ...]:
        """Folders of packages that the sandbox gives to programs."""
        return (self.library,) if self.library is not None else ()

    def to_dict(self) -> dict[str, Any]:
        """Return what a result records of the benchmark's data."""
        return {"source": self.source, "sha256": self.sha256, "problems": len(self.problems)}
