"""What are MBPP's problems? 974 tasks in words, each with three assertions; 427 of them sanitized.

Texts and programs of the release hold carriage returns and tabs: carriage returns are dropped, so that prompts
do not depend on them. The functions that the assertions call are those that the reference defines.
"""

from __future__ import annotations

import ast
import builtins
import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.data_files import MBPP, MBPP_SANITIZED
from evalkit.tasks.download import locate


def load_mbpp(data_dir: Path | None) -> Benchmark:
    """Read all 974 tasks; a protocol says which of them it asks.

    Raises:
        EvalError: the file is missing or not the pinned one.
    """
    path = locate(MBPP, data_dir)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    problems = tuple(
        _problem(row, description=row["text"], setup=row["test_setup_code"].replace("\r", "")) for row in rows
    )
    return Benchmark(name="mbpp", problems=problems, source=f"{MBPP.title}, {path.name}", sha256=MBPP.sha256)


def load_sanitized(data_dir: Path | None) -> Benchmark:
    """Read the 427 tasks that were checked by hand.

    Raises:
        EvalError: the file is missing or not the pinned one.
    """
    path = locate(MBPP_SANITIZED, data_dir)
    rows = json.loads(path.read_text(encoding="utf-8"))
    problems = tuple(_problem(row, description=row["prompt"], setup="\n".join(row["test_imports"])) for row in rows)
    return Benchmark(
        name="mbpp-sanitized",
        problems=problems,
        source=f"{MBPP_SANITIZED.title}, {path.name}",
        sha256=MBPP_SANITIZED.sha256,
        others=other_ids(problems),
    )


def other_ids(problems: Iterable[Problem]) -> frozenset[str]:
    """Return the ids of MBPP's 974 problems that are not of `problems`."""
    return frozenset(f"Mbpp/{number}" for number in range(1, 975)) - {problem.task_id for problem in problems}


def _problem(row: dict[str, Any], *, description: str, setup: str) -> Problem:
    reference = row["code"].replace("\r", "")
    tests = tuple(test.replace("\r", "").strip() for test in row["test_list"])
    used = _names(f"{setup}\n" + "\n".join(tests))
    defined, classes, modules = _definitions(reference)
    called = tuple(sorted(used & defined))
    imports = "".join(f"import {name}\n" for name in sorted(used & modules))
    return Problem(
        task_id=f"Mbpp/{row['task_id']}",
        prompt="",
        description=description.replace("\r", "").strip(),
        shown_tests=tests,
        entry_points=called,
        prelude=f"{imports}{setup}\n",
        test="\n".join(tests) + "\n",
        reference=reference + "\n",
        # Tests that build or compare objects of the program's own classes cannot cross the wall.
        inline=bool(used & classes),
    )


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the release's regular expressions hold bad escapes
        return ast.parse(source)


def _names(source: str) -> set[str]:
    return {
        node.id for node in ast.walk(_parse(source)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def _definitions(source: str) -> tuple[set[str], set[str], set[str]]:
    """Return the functions, classes and modules that a program defines or imports at its top."""
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
