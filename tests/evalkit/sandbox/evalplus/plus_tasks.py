"""Small benchmarks in EvalPlus' form, for tests: a file with one task, and jobs on it."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.sandbox.verdict import EVALPLUS_CPU_S, EVALPLUS_MEMORY_BYTES, CheckJob


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task whose reference is `reference`, a whole program that defines `name`."""

    path: Path
    task_id: str
    name: str

    def job(self, program: str, *, cache: Path | None = None) -> CheckJob:
        """Return the work order for `program`."""
        sha256 = hashlib.sha256(self.path.read_bytes()).hexdigest()
        where = {"path": str(self.path), "sha256": sha256, "task_id": self.task_id, "machine": "test"}
        return CheckJob(
            program=program,
            entry_points=(self.name,),
            prelude="",
            test="",
            inputs=where | {"cache": str(cache) if cache else None},
            cpu_s=EVALPLUS_CPU_S,
            memory_bytes=EVALPLUS_MEMORY_BYTES,
        )


def write_task(
    folder: Path,
    reference: str,
    *,
    base: list[list[Any]],
    plus: list[list[Any]],
    name: str = "f",
    task_id: str = "HumanEval/1000",
    atol: float = 0.0,
) -> Task:
    """Write the file of a task."""
    row = {"task_id": task_id, "prompt": "", "canonical_solution": reference, "entry_point": name, "atol": atol}
    path = folder / "Plus.jsonl.gz"
    with gzip.open(path, "wt") as stream:
        stream.write(json.dumps(row | {"base_input": base, "plus_input": plus}) + "\n")
    return Task(path=path, task_id=task_id, name=name)
