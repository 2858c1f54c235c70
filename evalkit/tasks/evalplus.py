"""HumanEval+ and MBPP+: the tasks of HumanEval and MBPP, checked on many more inputs (arXiv 2305.01210).

A solution passes when it agrees with the reference on the base inputs and on the added ones; see
`evalkit/sandbox/evalplus/check.py` for the rules. A score on MBPP+ is not comparable with MBPP's own metric.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from evalkit.cache_dirs import cache_dir
from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.data_files import DataFile
from evalkit.tasks.download import locate
from evalkit.tasks.mbpp import excluded_ids
from shards.runtime.machine import processor

HUMANEVAL_PLUS = DataFile(
    title="HumanEval+ v0.1.10",
    names=("HumanEvalPlus-v0.1.10.jsonl.gz", "HumanEvalPlus.jsonl.gz"),
    sha256="272720b90ac375502c8ed23cd791c2a93dfb22a911641a494da74a426c09f101",
    url="https://github.com/evalplus/humanevalplus_release (branch v0.1.10, HumanEvalPlus.jsonl.gz)",
    licence="Apache-2.0",
    # The branch: the tag of the same name holds the data of v0.1.9.
    link="https://github.com/evalplus/humanevalplus_release/raw/refs/heads/v0.1.10/HumanEvalPlus.jsonl.gz",
)
MBPP_PLUS = DataFile(
    title="MBPP+ v0.2.0",
    names=("MbppPlus-v0.2.0.jsonl.gz", "MbppPlus.jsonl.gz"),
    sha256="af43697e8791c4c149bdfd6b489d8b5412507551ac20e28a439f650b8225db63",
    url="https://github.com/evalplus/mbppplus_release/releases/download/v0.2.0/MbppPlus.jsonl.gz",
    licence="Apache-2.0",
    link="https://github.com/evalplus/mbppplus_release/releases/download/v0.2.0/MbppPlus.jsonl.gz",
)


def load_humaneval_plus(data_dir: Path | None) -> Benchmark:
    """Read HumanEval+ (164 tasks).

    Raises:
        EvalError: The file is missing or does not have the pinned digest.
    """
    return _load("humaneval+", HUMANEVAL_PLUS, data_dir)


def load_mbpp_plus(data_dir: Path | None) -> Benchmark:
    """Read MBPP+ (378 tasks).

    Raises:
        EvalError: The file is missing or does not have the pinned digest.
    """
    return _load("mbpp+", MBPP_PLUS, data_dir)


def _expected_values_dir() -> str | None:
    """Return the folder in which checkers cache the references' return values; None if it cannot be created."""
    folder = cache_dir("expected")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(folder)


def _load(name: str, file: DataFile, data_dir: Path | None) -> Benchmark:
    path = locate(file, data_dir)
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        rows: list[dict[str, Any]] = [json.loads(line) for line in stream]
    inputs = {
        "path": str(path.resolve()),
        "sha256": file.sha256,
        "cache": _expected_values_dir(),
        "machine": processor().name,
    }
    problems = tuple(
        Problem(
            task_id=row["task_id"],
            prompt=row["prompt"],
            entry_points=(row["entry_point"],),
            prelude="",
            test="",
            reference=row["prompt"] + row["canonical_solution"],
            inputs=inputs | {"task_id": row["task_id"]},
        )
        for row in rows
    )
    return Benchmark(
        name=name,
        problems=problems,
        source=f"{file.title}, {path.name}",
        sha256=file.sha256,
        excluded_ids=excluded_ids(problems) if name == "mbpp+" else frozenset(),
    )
