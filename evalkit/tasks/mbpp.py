"""MBPP: 974 tasks in words, each with three assertions, and the 427 sanitized ones (arXiv 2108.07732).

Carriage returns in the release's texts and programs are dropped, so that prompts do not depend on them. Entry points
are the functions of the reference that the assertions call.
"""

from __future__ import annotations

import ast
import builtins
import json
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.data_files import DataFile, HubRows
from evalkit.tasks.download import locate

_HUB_REPOSITORY = "google-research-datasets/mbpp"
_HUB_REVISION = "4bb6404fdc6cacfda99d4ac4205087b89d32030c"

MBPP = DataFile(
    title="MBPP",
    names=("mbpp.jsonl",),
    sha256="ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f",
    url="https://github.com/google-research/google-research/raw/master/mbpp/mbpp.jsonl",
    licence="CC-BY-4.0",
    hub=HubRows(
        repository=_HUB_REPOSITORY,
        revision=_HUB_REVISION,
        folder="full",
        keys=("text", "code", "task_id", "test_setup_code", "test_list", "challenge_test_list"),
        one_per_line=True,
    ),
)
MBPP_SANITIZED = DataFile(
    title="sanitized MBPP",
    names=("sanitized-mbpp.json",),
    sha256="ca95deaa9a01ef0a6f439f88bcf0dd3db3563d22f22aad6cae04ebb9a8d8c8e9",
    url="https://github.com/google-research/google-research/raw/master/mbpp/sanitized-mbpp.json",
    licence="CC-BY-4.0",
    hub=HubRows(
        repository=_HUB_REPOSITORY,
        revision=_HUB_REVISION,
        folder="sanitized",
        keys=("source_file", "task_id", "prompt", "code", "test_imports", "test_list"),
        one_per_line=False,
    ),
)

PARTS = {"mbpp:train": (601, 974), "mbpp:validation": (511, 600)}
"""First and last task of the parts that the authors set apart, by the name of the benchmark."""


def load_mbpp(data_dir: Path | None) -> Benchmark:
    """Read all 974 tasks; a protocol may cover only some of them.

    Raises:
        EvalError: The file is missing or does not have the pinned digest.
    """
    path = locate(MBPP, data_dir)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    problems = tuple(
        _problem(row, description=row["text"], setup=row["test_setup_code"].replace("\r", "")) for row in rows
    )
    return Benchmark(name="mbpp", problems=problems, source=f"{MBPP.title}, {path.name}", sha256=MBPP.sha256)


def load_mbpp_train(data_dir: Path | None) -> Benchmark:
    """Read the tasks 601 to 974, which the authors set apart for training; see `load_mbpp`."""
    return _part(load_mbpp(data_dir), "mbpp:train")


def load_mbpp_validation(data_dir: Path | None) -> Benchmark:
    """Read the tasks 511 to 600, which the authors set apart for validation; see `load_mbpp`."""
    return _part(load_mbpp(data_dir), "mbpp:validation")


def _part(benchmark: Benchmark, name: str) -> Benchmark:
    """Return the tasks of a benchmark that are in one of `PARTS`."""
    first_id, last_id = PARTS[name]
    ids = {f"Mbpp/{number}" for number in range(first_id, last_id + 1)}
    problems = tuple(problem for problem in benchmark.problems if problem.task_id in ids)
    return replace(benchmark, name=name, problems=problems, excluded_ids=excluded_ids(problems), is_part=True)


def load_mbpp_sanitized(data_dir: Path | None) -> Benchmark:
    """Read the 427 tasks that the authors verified by hand.

    Raises:
        EvalError: The file is missing or does not have the pinned digest.
    """
    path = locate(MBPP_SANITIZED, data_dir)
    rows = json.loads(path.read_text(encoding="utf-8"))
    problems = tuple(_problem(row, description=row["prompt"], setup="\n".join(row["test_imports"])) for row in rows)
    return Benchmark(
        name="mbpp-sanitized",
        problems=problems,
        source=f"{MBPP_SANITIZED.title}, {path.name}",
        sha256=MBPP_SANITIZED.sha256,
        excluded_ids=excluded_ids(problems),
    )


def excluded_ids(problems: Iterable[Problem]) -> frozenset[str]:
    """Return the ids of MBPP's 974 problems that are not among `problems`."""
    return frozenset(f"Mbpp/{number}" for number in range(1, 975)) - {problem.task_id for problem in problems}


def _problem(row: dict[str, Any], *, description: str, setup: str) -> Problem:
    reference = row["code"].replace("\r", "")
    tests = tuple(test.replace("\r", "").strip() for test in row["test_list"])
    used_names = _names(f"{setup}\n" + "\n".join(tests))
    functions, classes, modules = _definitions(reference)
    called = tuple(sorted(used_names & functions))
    imports = "".join(f"import {name}\n" for name in sorted(used_names & modules))
    return Problem(
        task_id=f"Mbpp/{row['task_id']}",
        prompt="",
        description=description.replace("\r", "").strip(),
        shown_tests=tests,
        entry_points=called,
        prelude=f"{imports}{setup}\n",
        test="\n".join(tests) + "\n",
        reference=reference + "\n",
        # Objects of the program's own classes cannot be passed between processes.
        inline=bool(used_names & classes),
    )


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # regular expressions of the release hold invalid escapes
        return ast.parse(source)


def _names(source: str) -> set[str]:
    """Return the names that a program reads."""
    return {
        node.id for node in ast.walk(_parse(source)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def _definitions(source: str) -> tuple[set[str], set[str], set[str]]:
    """Return the callables (functions and classes), classes and modules of a program's top level."""
    functions, classes, modules = set(), set(), set()
    for node in _parse(source).body:
        if isinstance(node, ast.FunctionDef):
            functions.add(node.name)
        elif isinstance(node, ast.ClassDef):
            classes.add(node.name)
        elif isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            functions |= {
                target.id
                for target in node.targets
                if isinstance(target, ast.Name) and not hasattr(builtins, target.id)
            }
    return functions | classes, classes, modules
