"""Read the functions that a model wrote to return inputs.

A file has a row per text with `task_id` and `completion`: the text that follows a prompt ending in
`def generate_inputs():`. The functions are untrusted and run in the sandbox only (`rerank/collect.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evalkit.rerank.model_tests import texts_of
from evalkit.samples.given_file import open_given
from evalkit.tasks.base import Benchmark
from evalkit.tasks.codet_prompts import BEGUN_GENERATOR


def read_generators(path: Path, benchmark: Benchmark, *, note: Callable[[str], None]) -> dict[str, tuple[str, ...]]:
    """Return the distinct programs of each problem that define `generate_inputs()`, by task id.

    Args:
        path: JSONL, plain or gzipped; `-` is standard input.
        benchmark: The benchmark of the functions.
        note: Receives a line about rows that are left out and problems without functions.

    Raises:
        EvalError: A row is not a text, or no row is of this benchmark.
    """
    with open_given(path) as given:
        texts, unknown = texts_of(given, benchmark, what="functions that return inputs")
    if unknown:
        note(f"{given.label}: {len(unknown)} rows are of problems that {benchmark.name} does not have: left out")
    if num_without := sum(not written for written in texts.values()):
        note(f"{given.label}: {num_without} of {len(texts)} {benchmark.name} problems have no function")
    return {
        task_id: tuple(dict.fromkeys(BEGUN_GENERATOR + text for text in written)) for task_id, written in texts.items()
    }
