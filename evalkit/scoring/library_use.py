"""Which programs use a benchmark's library: a program may also pass by computing everything itself."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evalkit.rerank.base import ProblemResult


@dataclass(frozen=True, kw_only=True, slots=True)
class LibraryUse:
    """Counts of samples, over all problems."""

    name: str
    """Name of the library."""
    samples: int
    used: int
    """Samples that use a name of the library, whether it exists or not."""
    passed: int
    passed_and_used: int

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as results hold them."""
        return asdict(self)


def count_library_use(problems: Sequence[ProblemResult], library: str) -> LibraryUse:
    """Count the samples that use a library."""
    used = [
        (uses_library(execution.sample.program(item.problem), library), execution.verdict.passed)
        for item in problems
        for execution in item.executions
    ]
    return LibraryUse(
        name=library,
        samples=len(used),
        used=sum(uses for uses, _ in used),
        passed=sum(passed for _, passed in used),
        passed_and_used=sum(uses and passed for uses, passed in used),
    )


def uses_library(program: str, library: str) -> bool:
    """Return whether a program reads a name that it imports from a library; an import alone is no use.

    A program that does not parse uses nothing.
    """
    try:
        nodes = list(ast.walk(ast.parse(program)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.asname or library for alias in node.names if alias.name.split(".")[0] == library}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == library:
            names |= {alias.asname or alias.name for alias in node.names}
    return any(isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names for node in nodes)
