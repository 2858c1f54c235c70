"""The program in a chat model's answer: imports, and what the entry point reaches.

After EvalPlus' sanitizer (arXiv 2305.01210, appendix): of the longest stretch of lines that is Python, keep the
imports and those definitions at the top that the entry point needs, directly or through others. Examples, prints
and tests at the top go, so that they neither fail nor take time.

EvalPlus parses every stretch of lines. Here a stretch that no further line can mend is left at once, so the time grows
about as the length of the answer; `MOST_COST` bounds it for answers made to be slow.
"""

from __future__ import annotations

import ast
import re
import warnings
from codeop import PyCF_ALLOW_INCOMPLETE_INPUT, PyCF_DONT_IMPLY_DEDENT  # type: ignore[attr-defined]  # not in typeshed

MOST_COST = 6_000_000
"""Most characters that are parsed for one answer, each as often as it is, and 16 more for each line: 2 to 3 s. It is
30 times the answer where that is more. Then the longest stretch that was found counts."""

_INCOMPLETE = ast.PyCF_ONLY_AST | PyCF_ALLOW_INCOMPLETE_INPUT | PyCF_DONT_IMPLY_DEDENT
_UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What a parser raises: the last three for null bytes and for nesting that is too deep."""


def sanitize(text: str, entry_point: str) -> str:
    """Return the program in `text` that defines `entry_point`, or `text` where no such program is found."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bad escapes
        tree, lines = _longest_code(text)
    if tree is None:
        return text
    defined = [(node, _bound(node)) for node in tree.body]
    if not any(entry_point in names for _, names in defined):
        return text
    reached = _reached(defined, entry_point)
    kept = [
        _first_line(node) for node, names in defined if isinstance(node, ast.Import | ast.ImportFrom) or names & reached
    ]
    ends = {_first_line(node): node.end_lineno or node.lineno for node in tree.body}
    return "\n\n".join("\n".join(lines[first - 1 : ends[first]]) for first in dict.fromkeys(kept)) + "\n"


def _reached(defined: list[tuple[ast.stmt, set[str]]], entry_point: str) -> set[str]:
    """Return the names that `entry_point` needs, itself included."""
    users: dict[str, list[ast.stmt]] = {}
    for node, names in defined:
        for name in names:
            users.setdefault(name, []).append(node)
    reached, waiting = {entry_point}, [entry_point]
    while waiting:
        for node in users.pop(waiting.pop(), []):
            new = _used(node) - reached
            reached |= new
            waiting += new
    return reached


def _lines(text: str) -> list[str]:
    """Split a text where Python does; `str.splitlines` also splits at form feeds and at separators of Unicode."""
    return re.split(r"\r\n|\r|\n", text)


def _longest_code(text: str) -> tuple[ast.Module | None, list[str]]:
    """Return the most lines in a row that are Python, blank ones not counted, and their tree if there are any."""
    if (tree := _parse(text)) is not None:
        return tree, _lines(text)
    if "\t" in text and (tree := _parse(text := text.expandtabs(4))) is not None:
        return tree, _lines(text)
    return _Search(_lines(text)).run()


class _Search:
    """The search for the stretch of an answer that is Python."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.filled = [0]
        """How many lines before each are not blank."""
        for line in lines:
            self.filled.append(self.filled[-1] + bool(line.strip()))
        self.ends = [0]
        """How many characters, line ends among them, are before each."""
        for line in lines:
            self.ends.append(self.ends[-1] + len(line) + 1)
        self._left = max(MOST_COST, 30 * self._cost(0, len(lines)))
        self._unfinished_try = False

    def run(self) -> tuple[ast.Module | None, list[str]]:
        """Return the longest stretch, of two as long the first, and its tree."""
        best, num_best, best_tree = (0, 0), 0, None
        inside: set[int] = set()  # lines that begin a statement of an earlier stretch: theirs would be a part of it
        for start, line in enumerate(self.lines):
            if self.filled[-1] - self.filled[start] <= num_best or self._left <= 0:
                break
            if start in inside or not line.strip() or line[0].isspace():
                continue
            limit = self._mendable_end(start)
            if self.filled[limit] - self.filled[start] <= num_best:
                continue
            end, tree = self._whole_end(start, limit, at_least=num_best)
            if tree is not None:
                best, best_tree, num_best = (start, end), tree, self.filled[end] - self.filled[start]
                inside |= {start + _first_line(node) - 1 for node in tree.body}
        return best_tree, self.lines[slice(*best)]

    def _mendable_end(self, start: int) -> int:
        """Return the end of the longest stretch from `start` that is Python, or the beginning of it."""
        good, size = start, 1
        end = min(start + size, len(self.lines))
        beyond = len(self.lines) + 1  # the shortest end that is known to be too far
        while good < end and self._left > 0:
            wrong = self._parse(start, end, _INCOMPLETE)
            if not isinstance(wrong, int):
                good, size = end, 8 * size
                end = min(start + size, len(self.lines)) if beyond > len(self.lines) else (good + beyond) // 2
            else:
                beyond = max(good + 1, min(end, start + wrong))
                # What the parser names is mostly right: one try just before it, then halves.
                end = beyond - 1 if end - beyond > 1 else (good + beyond) // 2
        return good

    def _whole_end(self, start: int, limit: int, *, at_least: int) -> tuple[int, ast.Module | None]:
        """Return the end of the longest stretch from `start` within `limit` that is whole, and its tree.

        The tree is None where none has more than `at_least` lines that are not blank.
        """
        end = limit
        while self.filled[end] - self.filled[start] > at_least and self._left > 0:
            wrong = self._parse(start, end, ast.PyCF_ONLY_AST)
            if not isinstance(wrong, int):
                return end, wrong
            end = max(start, min(end - 1, start + wrong - 1, self._cut(start, end)))
        return start, None

    def _cut(self, start: int, end: int) -> int:
        """Return an end before `end`, at which a stretch is not whole, without one in between that could be."""
        while end > start and not self.lines[end - 1].strip():
            end -= 1
        if self._unfinished_try:  # no end inside its body is one
            opener = next(
                (at for at in range(end - 1, start - 1, -1) if self.lines[at].lstrip().startswith("try")), end
            )
            return min(opener, end - 1)
        cut = end
        while cut - 1 > start and self.lines[cut - 1].lstrip().startswith("@") and self.lines[cut - 2][-1:] != "\\":
            cut -= 1  # decorators of nothing
        return min(cut, end - 1)

    def _cost(self, start: int, end: int) -> int:
        return self.ends[end] - self.ends[start] + 16 * (end - start)

    def _parse(self, start: int, end: int, flags: int) -> ast.Module | int | None:
        """Parse a stretch: its tree, None if it is only incomplete, or the line from 1 by which it cannot be Python."""
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
    """Parse, or return None: also for what breaks the parser."""
    try:
        return ast.parse(code)
    except _UNPARSABLE:
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
