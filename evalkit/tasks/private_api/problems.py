"""Problems over the library: a task in words, a solution, and cases; names of the library come from its renaming."""

from __future__ import annotations

import ast
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from evalkit.tasks.base import Problem
from evalkit.tasks.private_api.transform import Renaming

PROBLEMS_FILE = Path(__file__).with_name("problems.toml")
_WIDTH = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class ProblemTemplate:
    """One problem in terms of the library's real names."""

    entry: str
    """Name of the function that a model writes."""
    parameters: str
    task: str
    solution: str
    """Body of the function."""
    cases: str
    """Lines `CALL == VALUE`. The first is shown as an example, the others are the tests."""

    def pages(self, package: str, modules: Mapping[str, ast.Module]) -> tuple[str, ...]:
        """Return the library's names that the solution uses: functions and classes, and methods of these classes.

        Args:
            package: Name of the library.
            modules: Its syntax trees by the name of the module.
        """
        nodes = list(ast.walk(ast.parse(self.solution)))
        attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
        names: dict[str, None] = {}
        for node in attributes:
            path = ast.unparse(node).split(".")
            if len(path) == 3 and path[0] == package and path[1] in modules:
                names[".".join(path)] = None
                names |= dict.fromkeys(_methods(path, modules[path[1]], {item.attr for item in attributes}))
        return tuple(names)

    def problem(self, task_id: str, renaming: Renaming, *, pages: tuple[str, ...], digest: str) -> Problem:
        """Return the problem in terms of the renamed library.

        Args:
            task_id: Its id in the benchmark.
            renaming: The new names.
            pages: Real names that the solution uses, as `pages` returns them.
            digest: Digest of the library, which decides verdicts as the tests do.
        """
        library = renaming.name(renaming.symbols.package)
        example, *tests = self.cases.strip().split("\n")
        call, value = _sides(example)
        shown = f">>> {call}\n{value}"
        prompt = self._prompt(library, shown)
        solution = renaming.solution(self.solution)
        return Problem(
            task_id=task_id,
            prompt=prompt,
            description=f"{self.task}\n\n{shown}",
            entry_points=(self.entry,),
            prelude=f"# library {library}, sha256 {digest}\n",
            test="".join(f"assert {test}\n" for test in tests),
            reference=prompt + textwrap.indent(solution, "    ") + "\n",
            pages=tuple(map(renaming.page, pages)),
        )

    def _prompt(self, library: str, shown: str) -> str:
        lines = [
            *textwrap.wrap(self.task, _WIDTH),
            "",
            f"Use the library {library}: it has a function or a class for this.",
            "",
            shown,
        ]
        text = textwrap.indent("\n".join(lines), "    ").lstrip()
        raw = "r" if "\\" in text else ""
        return f'import {library}\n\n\ndef {self.entry}({self.parameters}):\n    {raw}"""{text}\n    """\n'


def read_templates() -> list[ProblemTemplate]:
    """Return all problems."""
    rows = tomllib.loads(PROBLEMS_FILE.read_text(encoding="utf-8"))["problem"]
    return [ProblemTemplate(**row) for row in rows]


def _sides(case: str) -> tuple[str, str]:
    """Return the sources of call and value of `CALL == VALUE`."""
    match ast.parse(case, mode="eval").body:
        case ast.Compare(left=call, ops=[ast.Eq()], comparators=[value]):
            sides = ast.get_source_segment(case, call), ast.get_source_segment(case, value)
            return str(sides[0]), str(sides[1])
    raise ValueError(f"{case}: expected CALL == VALUE")


def _methods(path: list[str], module: ast.Module, used: set[str]) -> Iterator[str]:
    """Yield the methods of a class, or of the classes of its module that it extends, whose names are in `used`."""
    classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    waiting = [path[2]]
    while waiting:
        name = waiting.pop(0)
        if name not in classes:
            continue
        for node in classes[name].body:
            if isinstance(node, ast.FunctionDef) and node.name in used:
                yield ".".join((*path[:2], name, node.name))
                used = used - {node.name}
        waiting += [base.id for base in classes[name].bases if isinstance(base, ast.Name)]
