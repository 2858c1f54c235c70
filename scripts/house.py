"""Structure figures of a checkout: folder sizes, import cycles, long functions, doubled class names.

`tests/test_house.py` enforces limits on these figures, and `docs/decisions/` cites them:

    python scripts/house.py                  # this checkout
    python scripts/house.py BEFORE AFTER     # one column per checkout
"""

from __future__ import annotations

import ast
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGES = ("shards", "teacher_dump", "student_train", "evalkit")
NOT_COUNTED = ("__init__", "__main__")
NO_CODE = (
    tokenize.ENCODING,
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)
COMMAND_DECORATORS = ("command", "group", "option", "argument", "pass_context")


@dataclass(frozen=True)
class Function:
    """Size of one function or method; nested functions also count towards the function around them."""

    name: str
    path: Path
    num_lines: int
    num_parameters: int
    is_command: bool
    """Whether click calls it with one argument per command-line option."""

    def __str__(self) -> str:
        return f"{self.path}:{self.name}"


def source_files(root: Path, packages: Iterable[str] = PACKAGES) -> list[Path]:
    """Return the Python files of the packages, sorted by path."""
    return sorted(path for package in packages for path in (root / package).rglob("*.py"))


def module_name(root: Path, path: Path) -> str:
    """Return the dotted name of a file; `__init__.py` has the name of its package."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below `node`, without the bodies of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for other in child.orelse:
                yield from _runtime_nodes(other)
        else:
            yield child
            yield from _runtime_nodes(child)


def imported_names(path: Path) -> set[str]:
    """Return every name that a file imports at run time, function bodies included; `from a import b` gives `a.b`."""
    names: set[str] = set()
    for node in _runtime_nodes(_tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def import_graph(root: Path) -> dict[str, set[str]]:
    """Map each module of the packages to the modules of the packages that it imports."""
    files = {module_name(root, path): path for path in source_files(root)}
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        found = {name if name in files else name.rpartition(".")[0] for name in imported_names(path)}
        graph[module] = {name for name in found if name in files and name != module}
    return graph


def import_cycles(graph: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Return the strongly connected components of at least two modules, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    cycles: list[tuple[str, ...]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for imported in sorted(graph[module]):
            if imported not in index:
                visit(imported)
                low[module] = min(low[module], low[imported])
            elif imported in stack:
                low[module] = min(low[module], index[imported])
        if low[module] == index[module]:
            members = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(members) > 1:
                cycles.append(tuple(sorted(members)))

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return sorted(cycles)


def files_per_folder(root: Path) -> dict[str, int]:
    """Count the source files of each folder, without `__init__.py` and `__main__.py`."""
    counts: dict[str, int] = defaultdict(int)
    for path in source_files(root):
        counts[str(path.parent.relative_to(root))] += path.stem not in NOT_COUNTED
    return dict(counts)


def lines_per_file(root: Path) -> dict[str, int]:
    """Count the lines of each source file."""
    return {str(path.relative_to(root)): len(path.read_text().splitlines()) for path in source_files(root)}


def code_lines(path: Path) -> int:
    """Count the lines of a file without blank lines, comments and docstrings."""
    documented: set[int] = set()
    for node in ast.walk(_tree(path)):
        # A string as a statement documents what is above it: a module, a class, a function or a field.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    with path.open("rb") as file:
        tokens = [t for t in tokenize.tokenize(file.readline) if t.type not in NO_CODE]
    return len({line for t in tokens for line in range(t.start[0], t.end[0] + 1)} - documented)


def _decorator_name(node: ast.expr) -> str:
    target = node.func if isinstance(node, ast.Call) else node
    return target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")


def functions(root: Path) -> list[Function]:
    """Return the size of every function; lines run from `def` to the end, `self` and `cls` are no parameters."""
    sizes: list[Function] = []
    for path in source_files(root):
        tree = _tree(path)
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        owners = {id(child): node.name for node in classes for child in node.body}
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            owner = owners.get(id(node))
            arguments = node.args
            names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            sizes.append(
                Function(
                    name=f"{owner}.{node.name}" if owner else node.name,
                    path=path.relative_to(root),
                    num_lines=(node.end_lineno or node.lineno) - node.lineno + 1,
                    num_parameters=len([name for name in names if name not in ("self", "cls")]),
                    is_command=any(_decorator_name(d) in COMMAND_DECORATORS for d in node.decorator_list),
                )
            )
    return sizes


def class_places(root: Path) -> dict[str, list[str]]:
    """Map each class name of the packages to the files that define it."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in source_files(root):
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(root)))
    return dict(places)


def figures(root: Path) -> dict[str, str]:
    """Return the figures of a checkout, each as text for a table."""
    folders, lines, sizes = files_per_folder(root), lines_per_file(root), functions(root)
    fullest, longest_file = max(folders, key=lambda f: folders[f]), max(lines, key=lambda f: lines[f])
    longest = max(sizes, key=lambda f: f.num_lines)
    widest = max((f for f in sizes if not f.is_command), key=lambda f: f.num_parameters)
    doubled = sorted(name for name, places in class_places(root).items() if len(places) > 1)
    tests = source_files(root, ["tests"])
    return {
        "source files": str(len(lines)),
        "folders": str(len(folders)),
        "source files in the fullest folder": f"{folders[fullest]} ({fullest})",
        "lines": f"{sum(lines.values()):,}",
        "lines without comments and docstrings": f"{sum(map(code_lines, source_files(root))):,}",
        "longest file, lines": f"{lines[longest_file]} ({longest_file})",
        "files over 350 lines": str(sum(n > 350 for n in lines.values())),
        "longest function, lines": f"{longest.num_lines} ({longest})",
        "functions over 60 lines": str(sum(f.num_lines > 60 for f in sizes)),
        "most parameters, commands left out": f"{widest.num_parameters} ({widest})",
        "import cycles": str(len(import_cycles(import_graph(root)))),
        "class names defined twice": str(len(doubled)),
        "test files": str(sum(path.name.startswith("test_") for path in tests)),
        "lines of tests": f"{sum(len(path.read_text().splitlines()) for path in tests):,}",
    }


def main(roots: list[str]) -> None:
    """Print the figures of each checkout as a Markdown table."""
    columns = {root: figures(Path(root).resolve()) for root in roots or ["."]}
    print(f"| | {' | '.join(columns)} |")
    print(f"|---|{'---|' * len(columns)}")
    for name in next(iter(columns.values())):
        print(f"| {name} | {' | '.join(column[name] for column in columns.values())} |")


if __name__ == "__main__":
    main(sys.argv[1:])
