"""EvalPlus' problems, HumanEval+ and MBPP+: the same tasks, checked on many more inputs.

A solution passes when it agrees with the reference on the base inputs and on the added ones; see
`evalkit/sandbox/evalplus/check.py` for the rules. This is not MBPP's own metric: name which one a score is.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from evalkit.cache_dirs import default_folder
from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.data_files import HUMANEVAL_PLUS, MBPP_PLUS, DataFile
from evalkit.tasks.download import locate
from evalkit.tasks.mbpp import other_ids
from shards.runtime.machine import processor


def load_humaneval_plus(data_dir: Path | None) -> Benchmark:
    """Read HumanEval+ (164 tasks).

    Raises:
        EvalError: the file is missing or not the pinned one.
    """
    return _load("humaneval+", HUMANEVAL_PLUS, data_dir)


def load_mbpp_plus(data_dir: Path | None) -> Benchmark:
    """Read MBPP+ (378 tasks).

    Raises:
        EvalError: the file is missing or not the pinned one.
    """
    return _load("mbpp+", MBPP_PLUS, data_dir)


def _cache_folder() -> str | None:
    """Return where judges may keep what references answer, or None."""
    folder = default_folder() / "expected"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(folder)


def _load(name: str, file: DataFile, data_dir: Path | None) -> Benchmark:
    path = locate(file, data_dir)
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        rows: list[dict[str, Any]] = [json.loads(line) for line in stream]
    where = {"path": str(path.resolve()), "sha256": file.sha256, "cache": _cache_folder(), "machine": processor().name}
    problems = tuple(
        Problem(
            task_id=row["task_id"],
            prompt=row["prompt"],
            entry_points=(row["entry_point"],),
            prelude="",
            test="",
            reference=row["prompt"] + row["canonical_solution"],
            inputs=where | {"task_id": row["task_id"]},
        )
        for row in rows
    )
    return Benchmark(
        name=name,
        problems=problems,
        source=f"{file.title}, {path.name}",
        sha256=file.sha256,
        others=other_ids(problems) if name == "mbpp+" else frozenset(),
    )
