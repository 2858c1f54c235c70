"""Extract the program from a chat model's answer: imports, and the definitions that the entry points need.

Follows EvalPlus' sanitizer (arXiv 2305.01210, appendix). It takes the longest range of lines that is valid Python. Of
that range it keeps the imports, and the top-level definitions that the entry points need, directly or through others.
Top-level examples, prints and tests are dropped, so that they neither fail nor take time.

EvalPlus parses every range of lines. This module abandons a range as soon as no further line can make it valid, so the
time is about linear in the length of the answer. `MAX_COST` bounds it for adversarial answers.
"""

from __future__ import annotations

import ast
import re
import warnings
from codeop import PyCF_ALLOW_INCOMPLETE_INPUT, PyCF_DONT_IMPLY_DEDENT  # type: ignore[attr-defined]  # not in typeshed

MAX_COST = 6_000_000
"""Maximum number of characters parsed for one answer, repetitions included, plus 16 per line: 2 to 3 s. The limit is 30
times the answer where that is larger. Beyond it, the longest valid range so far is used."""

_INCOMPLETE = ast.PyCF_ONLY_AST | PyCF_ALLOW_INCOMPLETE_INPUT | PyCF_DONT_IMPLY_DEDENT
_UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""Exceptions of the parser: the last three for null bytes and for nesting that is too deep."""


def sanitize(text: str, entry_points: tuple[str, ...]) -> str:
    """Return the program in `text`, reduced to what the entry points need.

    Args:
        text: A model's answer, with or without Markdown fences.
        entry_points: Names that the benchmark's checks use: functions, and classes whose objects they pass.

    Returns:
        The program; `text` itself if no valid range of lines defines any of `entry_points`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escape sequences
        tree, lines = _longest_code(text)
    if tree is None:
        return text
    defined = [(node, _bound(node)) for node in tree.body]
    if not any(names.intersection(entry_points) for _, names in defined):
        return text
    reached = _reached(defined, entry_points)
    first_lines = [
        _first_line(node) for node, names in defined if isinstance(node, ast.Import | ast.ImportFrom) or names & reached
    ]
    ends = {_first_line(node): node.end_lineno or node.lineno for node in tree.body}
    return "\n\n".join("\n".join(lines[first - 1 : ends[first]]) for first in dict.fromkeys(first_lines)) + "\n"


def _reached(defined: list[tuple[ast.stmt, set[str]]], entry_points: tuple[str, ...]) -> set[str]:
    """Return the names that the entry points need, including themselves."""
    definitions: dict[str, list[ast.stmt]] = {}
    for node, names in defined:
        for name in names:
            definitions.setdefault(name, []).append(node)
    reached, waiting = set(entry_points), list(entry_points)
    while waiting:
        for node in definitions.pop(waiting.pop(), []):
            new = _used(node) - reached
            reached |= new
            waiting += new
    return reached


def _lines(text: str) -> list[str]:
    """Split a text at Python's line ends; `str.splitlines` also splits at form feeds and Unicode separators."""
    return re.split(r"\r\n|\r|\n", text)


def _longest_code(text: str) -> tuple[ast.Module | None, list[str]]:
    """Return the tree and the lines of the longest range that is valid Python; blank lines do not count."""
    if (tree := _parse(text)) is not None:
        return tree, _lines(text)
    if "\t" in text and (tree := _parse(text := text.expandtabs(4))) is not None:
        return tree, _lines(text)
    return _Search(_lines(text)).run()


class _Search:
    """Search for the longest range of an answer's lines that is valid Python.

    A range is given by the numbers of its first line and of the line after its last, from 0.
    """

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.filled = [0]
        """Number of lines before each that are not blank."""
        for line in lines:
            self.filled.append(self.filled[-1] + bool(line.strip()))
        self.ends = [0]
        """Number of characters before each line, line ends included."""
        for line in lines:
            self.ends.append(self.ends[-1] + len(line) + 1)
        self._left = max(MAX_COST, 30 * self._cost(0, len(lines)))
        self._unfinished_try = False
        """The last range that was parsed ended in a `try` without `except` and `finally`."""

    def run(self) -> tuple[ast.Module | None, list[str]]:
        """Return the tree and the lines of the longest range, the first of several of equal length."""
        best, num_best, best_tree = (0, 0), 0, None
        inside: set[int] = set()  # lines at which statements of an earlier range begin: their range is part of it
        for start, line in enumerate(self.lines):
            if self.filled[-1] - self.filled[start] <= num_best or self._left <= 0:
                break
            if start in inside or not line.strip() or line[0].isspace():
                continue
            limit = self._completable_end(start)
            if self.filled[limit] - self.filled[start] <= num_best:
                continue
            end, tree = self._valid_end(start, limit, longer_than=num_best)
            if tree is not None:
                best, best_tree, num_best = (start, end), tree, self.filled[end] - self.filled[start]
                inside |= {start + _first_line(node) - 1 for node in tree.body}
        return best_tree, self.lines[slice(*best)]

    def _completable_end(self, start: int) -> int:
        """Return the end of the longest range from `start` that is a prefix of some valid program."""
        good, size = start, 1
        end = min(start + size, len(self.lines))
        beyond = len(self.lines) + 1  # the smallest end that is known to be too large
        while good < end and self._left > 0:
            parsed = self._parse(start, end, _INCOMPLETE)
            if not isinstance(parsed, int):
                good, size = end, 8 * size
                end = min(start + size, len(self.lines)) if beyond > len(self.lines) else (good + beyond) // 2
            else:
                beyond = max(good + 1, min(end, start + parsed))
                # The line that the parser reports is mostly right: try just before it, then bisect.
                end = beyond - 1 if end - beyond > 1 else (good + beyond) // 2
        return good

    def _valid_end(self, start: int, limit: int, *, longer_than: int) -> tuple[int, ast.Module | None]:
        """Return the end of the longest range from `start` within `limit` that is a valid program, and its tree.

        The tree is None if no such range has more than `longer_than` non-blank lines.
        """
        end = limit
        while self.filled[end] - self.filled[start] > longer_than and self._left > 0:
            parsed = self._parse(start, end, ast.PyCF_ONLY_AST)
            if not isinstance(parsed, int):
                return end, parsed
            end = max(start, min(end - 1, start + parsed - 1, self._shorter_end(start, end)))
        return start, None

    def _shorter_end(self, start: int, end: int) -> int:
        """Return the next smaller end at which a range may be valid, given that it is not valid at `end`."""
        while end > start and not self.lines[end - 1].strip():
            end -= 1
        if self._unfinished_try:  # no end inside the body of the `try` is valid
            opener = next(
                (at for at in range(end - 1, start - 1, -1) if self.lines[at].lstrip().startswith("try")), end
            )
            return min(opener, end - 1)
        cut = end
        while cut - 1 > start and self.lines[cut - 1].lstrip().startswith("@") and self.lines[cut - 2][-1:] != "\\":
            cut -= 1  # decorators without a definition
        return min(cut, end - 1)

    def _cost(self, start: int, end: int) -> int:
        return self.ends[end] - self.ends[start] + 16 * (end - start)

    def _parse(self, start: int, end: int, flags: int) -> ast.Module | int | None:
        """Return the tree of a range, None if it is only incomplete, or the line (from 1) of its first error."""
        self._left -= self._cost(start, end)
        try:
            tree = compile("\n".join(self.lines[start:end]), "<answer>", "exec", flags, dont_inherit=True)
        except SyntaxError as error:
            self._unfinished_try = "'except' or 'finally'" in (error.msg or "")
            if flags == _INCOMPLETE and error.msg == "incomplete input":
                return None
            return min(error.lineno or end - start, end - start)
        except _UNPARSABLE:
            return end - start
        assert isinstance(tree, ast.Module)
        return tree


def _parse(code: str) -> ast.Module | None:
    """Return the tree of a program; None if the parser fails on it."""
    try:
        return ast.parse(code)
    except _UNPARSABLE:
        return None


def _first_line(node: ast.stmt) -> int:
    """Return the line (from 1) at which a statement or its first decorator begins."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _bound(node: ast.stmt) -> set[str]:
    """Return the names that a top-level statement defines; other statements than definitions are never kept."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        # `memo[0] = 1` and `a.b = 1` define no name, but belong to the object that they change.
        return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return set()


def _used(node: ast.stmt) -> set[str]:
    """Return all names in a statement."""
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
