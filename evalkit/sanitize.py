"""What of a chat model's answer is the program? Imports, and what the entry point reaches.

After EvalPlus' sanitizer (arXiv 2305.01210, appendix): of the longest stretch of lines that is Python, keep the
imports and those definitions at the top that the entry point needs, directly or through others. Examples, prints
and tests at the top go, so that they neither fail nor take time.
"""

from __future__ import annotations

import ast
import warnings

_MAX_LINES = 300
"""Longest answer that is searched for its Python; a longer one is judged as it is."""


def sanitize(text: str, entry_point: str) -> str:
    """Return the program in `text` that defines `entry_point`, or `text` where no such program is found."""
    code = _longest_code(text.expandtabs(4) if "\t" in text and _parse(text) is None else text)
    tree = _parse(code)
    if tree is None:
        return text
    defined = [(node, _bound(node)) for node in tree.body]
    if not any(entry_point in names for _, names in defined):
        return text
    reached = {entry_point}
    while True:
        used = {name for node, names in defined if names & reached for name in _used(node)}
        if used <= reached:
            break
        reached |= used
    kept = [
        _first_line(node) for node, names in defined if isinstance(node, ast.Import | ast.ImportFrom) or names & reached
    ]
    ends = {_first_line(node): node.end_lineno or node.lineno for node in tree.body}
    lines = code.splitlines()
    return "\n\n".join("\n".join(lines[first - 1 : ends[first]]) for first in dict.fromkeys(kept)) + "\n"


def _longest_code(text: str) -> str:
    """Return the most lines in a row that are Python, blank ones not counted; empty where there are none."""
    lines = text.splitlines()
    if _parse(text) is not None or len(lines) > _MAX_LINES:
        return text
    filled = [0]
    for line in lines:
        filled.append(filled[-1] + bool(line.strip()))
    spans = sorted(
        ((start, end) for start in range(len(lines)) for end in range(start + 1, len(lines) + 1)),
        key=lambda span: (filled[span[0]] - filled[span[1]], span),
    )
    for start, end in spans:
        if lines[start].strip() and not lines[start][0].isspace() and _parse(code := "\n".join(lines[start:end])):
            return code
    return ""


def _parse(code: str) -> ast.Module | None:
    """Parse, or return None: also for what breaks the parser, such as null bytes or nesting that is too deep."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(one.lineno for one in decorators)])


def _bound(node: ast.stmt) -> set[str]:
    """Return the names that a statement at the top defines; statements of other kinds are never kept."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        # `memo[0] = 1` and `a.b = 1` define nothing, yet what they change needs them.
        return {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return set()


def _used(node: ast.stmt) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
