"""Rename a library's names in its documentation: examples as code, names in prose where they stand for names.

A word such as `split` is also English. In prose it is replaced where it is marked up as code, or is followed by a
parenthesis, or begins an entry of a list of arguments. Names that no English sentence holds are replaced everywhere.
"""

from __future__ import annotations

import ast
import doctest
import re

from evalkit.tasks.private_api.transform import WORD, Renaming, rename

_MARKED = re.compile(r"(``|(?::[a-z]+:)?`)([^`\n]+)(?=`)|(?<![\w*])(\*)(\w+)(?=\*(?![\w*]))")
_CALLED = re.compile(r"\b[A-Za-z_][A-Za-z0-9_]*(?=\()")
_LISTED = re.compile(r"^(\s+)([A-Za-z_][A-Za-z0-9_]*)(?=( \([^)\n]*\))?:(\s|$))", re.MULTILINE)
_LINK = re.compile(r"^ *\.\. _.*\n?|https?://\S+", re.MULTILINE)
ENGLISH = frozenset(
    {
        "backoff",
        "cached",
        "ceil",
        "chunked",
        "clamp",
        "complement",
        "first",
        "flatten",
        "floor",
        "indent",
        "lstrip",
        "one",
        "partition",
        "redundant",
        "research",
        "rstrip",
        "same",
        "split",
        "strip",
        "unique",
        "windowed",
    }
)
"""Names of functions that are also words of prose."""


class DocumentationRenamer:
    """The docstrings of one module."""

    def __init__(self, renaming: Renaming, *, module: str) -> None:
        self._renaming, self._module = renaming, module
        functions = frozenset().union(*renaming.symbols.public.values())
        self._names = functions | renaming.symbols.members
        self._everywhere = functions - ENGLISH

    def docstring(self, text: str, arguments: frozenset[str]) -> str:
        """Return a docstring with the new names.

        Args:
            text: The docstring.
            arguments: Names of the arguments of its function.
        """
        parts = doctest.DocTestParser().parse(text)
        return "".join(
            self._example(part) if isinstance(part, doctest.Example) else self._prose(part, arguments) for part in parts
        )

    def _example(self, example: doctest.Example) -> str:
        """Return the text of an example."""
        source = example.source
        try:
            tree = rename(ast.parse(source), self._renaming, module=self._module)
            options = re.findall(r"#\s*doctest:.*", source)
            source = " ".join([ast.unparse(tree), *options])
        except SyntaxError:
            source = self._renaming.text(source).rstrip("\n")
        lines = source.split("\n")
        marked = [f">>> {lines[0]}", *(f"... {line}".rstrip() for line in lines[1:])]
        wanted = self._renaming.text(example.want or example.exc_msg or "").splitlines()
        indent = " " * example.indent
        return "".join(f"{indent}{line}".rstrip() + "\n" for line in (*marked, *wanted))

    def _prose(self, text: str, arguments: frozenset[str]) -> str:
        text = _LINK.sub("", text)
        names = self._names | arguments

        def replaced(word: str) -> str:
            return self._renaming.name(word) if word in names and word in self._renaming.symbols.all else word

        text = _MARKED.sub(lambda match: (match[1] or match[3]) + self._code(match[2] or match[4], names), text)
        text = _CALLED.sub(lambda match: replaced(match[0]), text)
        text = _LISTED.sub(lambda match: match[1] + (replaced(match[2]) if match[2] in arguments else match[2]), text)
        text = WORD.sub(lambda match: replaced(match[0]) if match[0] in self._everywhere else match[0], text)
        return self._renaming.text(text)

    def _code(self, code: str, names: frozenset[str]) -> str:
        """Return code in prose with the new names; a dotted name of another library, such as `str.split`, stays."""
        symbols = self._renaming.symbols
        known = names | symbols.arguments | symbols.bound.keys() | {symbols.package}

        def replaced(match: re.Match[str]) -> str:
            first = re.split(r"\W", code[: match.end()].rpartition(" ")[2])[0]
            is_ours = match[0] in known and match[0] in symbols.all and (first in known or first == match[0])
            return self._renaming.name(match[0]) if is_ours else match[0]

        return WORD.sub(replaced, code)
