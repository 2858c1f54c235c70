"""Examples that a prompt shows: calls of the entry point in its docstring, with the values that it names.

Understands doctests (`>>> f(1)` and a value on the next line), and the forms of HumanEval: `f(1) ==> 2`, `f(1) -> 2`,
`f(1) == 2`, `f(1) = 2`, `f(1) returns 2`, `f(1) should return 2`, `f(1) # => 2`, `f(1) ➞ 2`.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import NamedTuple

from evalkit.tasks.base import Problem

_LONGEST_CALL = 2000
"""Characters in which the end of a call is looked for."""
_LONGEST_VALUE = 400
_SEPARATOR = re.compile(
    r"[ \t]*(?:#[ \t]*)?(?:={1,3}>|-{1,2}>|==?|\u279e|\u2192|(?:should[ \t]+)?(?:returns?\b|be\b)|outputs?\b)[ \t]*(.*)"
)
_NEXT_LINE = re.compile(r"[ \t]*(?:#[^\n]*)?\n[ \t]*(\S[^\n]*)")
_BOOLEANS = {"true": "True", "false": "False", "none": "None"}
_UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError, TypeError)


class Example(NamedTuple):
    """A call that a prompt shows."""

    call: str
    """Its normalised source. All arguments are literals."""
    value: str
    """Source of the literal that the prompt names as its value; "" if it names none."""

    @property
    def test(self) -> str:
        """The assert statement that it stands for."""
        return f"assert {self.call} == {self.value}"


def prompt_examples(problem: Problem) -> tuple[Example, ...]:
    """Return the distinct examples in the prompt's docstrings; none where the prompt has no docstring."""
    examples: dict[str, Example] = {}
    for text in docstrings(problem):
        for name in problem.entry_points:
            for match in re.finditer(rf"(?<![\w.]){re.escape(name)}\(", text):
                example = _example(text, match.start())
                if example is not None and (example.call not in examples or not examples[example.call].value):
                    examples[example.call] = example
    return tuple(examples.values())


def docstrings(problem: Problem) -> list[str]:
    """Return the docstrings of the prompt's module and of its entry points."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(problem.prompt)
    except _UNPARSABLE:
        return []
    nodes: list[ast.Module | ast.FunctionDef] = [tree]
    nodes += [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in problem.entry_points]
    return [text for node in nodes if (text := ast.get_docstring(node, clean=False))]


def _example(text: str, start: int) -> Example | None:
    """Return the example whose call begins at `start`."""
    call, end = _call(text, start)
    if call is None:
        return None
    value = ""
    line_start = text.rfind("\n", 0, start) + 1
    if (match := _SEPARATOR.match(text, end)) is not None:
        value = _value(match.group(1))
    elif text[line_start:start].strip() == ">>>" and (match := _NEXT_LINE.match(text, end)) is not None:
        # A doctest without output stands for None.
        value = "None" if match.group(1).startswith(">>>") else _value(match.group(1))
    return Example(call, value) if value or not call.endswith("()") else None


def _call(text: str, start: int) -> tuple[str | None, int]:
    """Return the normalised call that begins at `start`, if its arguments are literals, and its end."""
    for match in re.finditer(r"\)", text[start : start + _LONGEST_CALL]):
        end = start + match.end()
        try:
            node = ast.parse(text[start:end].replace("\n", " "), mode="eval").body
        except _UNPARSABLE:
            continue
        if not isinstance(node, ast.Call):
            return None, end
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        return (ast.unparse(node) if all(map(is_literal, arguments)) else None), end
    return None, start


def _value(text: str) -> str:
    """Return the longest literal at the start of `text`, normalised; "" if there is none.

    For a calculation, such as `1 + 9 = 10`, it is the literal after the last equals sign.
    """
    text = text.strip()[:_LONGEST_VALUE]
    for end in range(len(text), 0, -1):
        source = _BOOLEANS.get(text[:end], text[:end])
        try:
            node = ast.parse(source, mode="eval").body
        except _UNPARSABLE:
            continue
        rest = text[end:].lstrip()
        if not is_literal(node) or re.match(r"\w", text[end:]):
            continue
        if re.match(r"[-+*/%]\s*[\d(]|=", rest):
            return _value(rest.rpartition("=")[2]) if "=" in rest else ""
        return ast.unparse(node)
    return ""


def is_literal(node: ast.expr) -> bool:
    """Return whether `node` is a literal of built-in types."""
    try:
        ast.literal_eval(node)
    except _UNPARSABLE:
        return False
    return True
