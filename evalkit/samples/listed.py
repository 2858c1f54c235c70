"""Rows that list all texts of one prompt, in the form of the files that CodeT's authors published.

    {"prompt": "def add(x, y):\\n ...", "samples": ["    return x + y\\n", ...]}

Such a row names no task: the function that its prompt begins does. A solution is cut at the stop strings of CodeT, as
its authors do when they read the file (microsoft/CodeT, src/postprocess.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any

from evalkit.errors import EvalError
from evalkit.samples.given_file import GivenFile, rows
from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.protocols import find

STOPS = find("humaneval-codet-v1", task="humaneval").stop
"""Strings at which a listed solution ends."""

_DEFINITION = re.compile(r"^[ \t]*def[ \t]+(\w+)", re.MULTILINE)


def single_rows(
    given: GivenFile, benchmark: Benchmark, *, stops: tuple[str, ...] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, fields) of each text, as `given_file.rows` does; rows that list texts are taken apart.

    Args:
        given: The file.
        benchmark: The benchmark of its rows.
        stops: Strings at which listed texts are cut.

    Raises:
        EvalError: A row cannot be read, names no task, or its prompt begins no function of the benchmark.
    """
    for place, fields in rows(given):
        if "samples" not in fields:
            yield place, fields
            continue
        texts, prompt = fields["samples"], fields.get("prompt")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise EvalError(f"{place}: samples is no list of texts; expected all texts of its prompt")
        task_id = fields.get("task_id")
        if task_id is None:
            task_id = _task_id(prompt, benchmark, place)
        shown = {"prompt": prompt} if isinstance(prompt, str) else {}
        for text in texts or [""]:  # a prompt without samples counts as one that fails
            yield place, {"task_id": task_id, "completion": _cut(text, stops), **shown}


def _task_id(prompt: Any, benchmark: Benchmark, place: str) -> str:
    """Return the id of the problem whose function the prompt begins; of several, that with the most similar text."""
    names = _DEFINITION.findall(prompt) if isinstance(prompt, str) else []
    problems = [problem for problem in benchmark.problems if names and names[-1] in problem.entry_points]
    if not problems:
        found = f"its prompt begins {names[-1]}" if names else "it has neither a task_id nor a prompt with a function"
        raise EvalError(f"{place}: {found}, expected a function of {benchmark.name}; name the right one with --tasks")

    def similarity(problem: Problem) -> float:
        return SequenceMatcher(None, prompt, problem.prompt or problem.description, autojunk=False).ratio()

    return max(problems, key=similarity).task_id if len(problems) > 1 else problems[0].task_id


def _cut(text: str, stops: tuple[str, ...]) -> str:
    for stop in stops:
        text = text.partition(stop)[0]
    return text
