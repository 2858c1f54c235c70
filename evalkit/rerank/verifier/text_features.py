"""Features of a program's text: its size and its statements, without docstrings, comments and names."""

from __future__ import annotations

import ast
import math
import warnings
from collections import Counter
from typing import TypeGuard

TEXT_FEATURES = (
    "parses",
    "size",
    "functions",
    "loops",
    "branches",
    "comprehensions",
    "returns",
    "calls_itself",
    "tries",
    "prints",
    "imports",
    "stubs",
)
"""Names of the features: counts as log(1 + count); `parses`, `calls_itself` and `stubs` are 0 or 1."""

LONGEST_PROGRAM = 50_000
"""Characters of the longest program that is parsed; a longer one counts as one that does not parse."""

_COUNTED: dict[str, tuple[type[ast.AST], ...]] = {
    "functions": (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda),
    "loops": (ast.For, ast.While, ast.AsyncFor),
    "branches": (ast.If, ast.IfExp, ast.BoolOp, ast.Match),
    "comprehensions": (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    "returns": (ast.Return, ast.Yield, ast.YieldFrom),
    "tries": (ast.Try, ast.Assert, ast.Raise),
    "imports": (ast.Import, ast.ImportFrom),
}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def text_features(program: str) -> tuple[float, ...]:
    """Return the value of each of `TEXT_FEATURES`; all 0 for a text that is no Python.

    Args:
        program: An untrusted module, which is parsed and never executed.
    """
    tree = _parse(program)
    if tree is None:
        return (0.0,) * len(TEXT_FEATURES)
    texts = {id(node.value) for node in ast.walk(tree) if _is_docstring(node)}
    nodes = [node for node in ast.walk(tree) if not _is_docstring(node) and id(node) not in texts]
    types = Counter(type(node) for node in nodes)
    counts = {name: sum(types[kind] for kind in kinds) for name, kinds in _COUNTED.items()}
    counts |= {"size": len(nodes), "prints": sum(_called(node) == "print" for node in nodes)}
    functions = [node for node in nodes if isinstance(node, _Function)]
    marks = {
        "parses": True,
        "calls_itself": any(_called(node) == function.name for function in functions for node in ast.walk(function)),
        "stubs": any(_is_stub(function) for function in functions),
    }
    values = {name: math.log1p(count) for name, count in counts.items()} | {k: float(v) for k, v in marks.items()}
    return tuple(values[name] for name in TEXT_FEATURES)


def _parse(program: str) -> ast.Module | None:
    if len(program) > LONGEST_PROGRAM:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_docstring(node: ast.AST) -> TypeGuard[ast.Expr]:
    """Return whether a statement is a docstring, `...` or another constant."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _called(node: ast.AST) -> str:
    """Return the name that a call calls; "" for anything else."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def _is_stub(function: _Function) -> bool:
    """Return whether a function has nothing but docstrings and `pass`."""
    return all(_is_docstring(statement) or isinstance(statement, ast.Pass) for statement in function.body)
