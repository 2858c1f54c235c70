"""Split docstrings into summary, parameters, value and examples: Google, numpy and Sphinx style, found by griffe."""

from __future__ import annotations

import doctest
import inspect
import logging
import re
from dataclasses import dataclass
from typing import Any

from griffe import Docstring, DocstringSectionKind

from evalkit.text import one_line

MAX_DOCSTRING_CHARS = 20_000
"""Characters of a docstring that are read."""
MAX_LINE_CHARS = 240
"""Longest summary, parameter and value."""
MAX_EXAMPLE_CHARS = 1500
"""Longest examples; they end at the end of a line."""


def silence_parser() -> None:
    """Switch off griffe's warnings: an incomplete docstring of a package is not its reader's concern."""
    logging.getLogger("griffe").setLevel(logging.CRITICAL)


@dataclass(frozen=True, kw_only=True, slots=True)
class DocstringParts:
    """Parts of a docstring, as `DocsEntry` holds them."""

    summary: str = ""
    parameters: tuple[str, ...] = ()
    returns: str = ""
    examples: str = ""


def split_docstring(text: str) -> DocstringParts:
    """Return the parts of a docstring; those it does not have are empty."""
    text = inspect.cleandoc(text[:MAX_DOCSTRING_CHARS].replace("\0", ""))
    if not text:
        return DocstringParts()
    sections: dict[Any, Any] = {}
    try:
        for section in Docstring(text).parse("auto"):
            sections.setdefault(section.kind, section.value)
    except Exception:  # a parser may fail on any text; the summary and doctests are found without it
        sections.clear()
    return DocstringParts(
        summary=_line(_first_paragraph(text)),
        parameters=tuple(_item(item) for item in sections.get(DocstringSectionKind.parameters, ())),
        returns=_line("; ".join(_value(item) for item in sections.get(DocstringSectionKind.returns, ()))),
        examples=_examples(text, sections.get(DocstringSectionKind.examples, ())),
    )


def split_call(docstring: str, name: str) -> tuple[str, str]:
    """Split off the signature that docstrings of compiled functions begin with.

    Returns:
        The signature on one line, empty if there is none, and the rest of the docstring.
    """
    text = inspect.cleandoc(docstring[:MAX_DOCSTRING_CHARS])
    head, _, rest = text.partition("\n\n")
    begin = re.match(rf"(?:\w+\.)*(?={re.escape(name)}\()", head)
    if begin is None or ")" not in head:
        return "", docstring
    lines = head[begin.end() :].splitlines()
    length = next((count for count, line in enumerate(lines, start=1) if ")" in line), len(lines))
    call = _line(" ".join(lines[:length]))
    return call, "\n".join([*lines[length:], "", rest]).strip("\n")


def _first_paragraph(text: str) -> str:
    return text.partition("\n\n")[0]


def _line(text: str) -> str:
    """Return `text` as one line, cut after a word."""
    line = one_line(" ".join(text.split()))
    if len(line) <= MAX_LINE_CHARS:
        return line
    return line[:MAX_LINE_CHARS].rpartition(" ")[0] + " ..."


def _item(parameter: Any) -> str:
    kind = f" ({parameter.annotation})" if parameter.annotation else ""
    return _line(f"{parameter.name}{kind}: {_first_paragraph(parameter.description or '')}")


def _value(returned: Any) -> str:
    parts = (str(part) for part in (returned.name, returned.annotation, returned.description) if part)
    return _first_paragraph(": ".join(parts))


def _examples(text: str, section: Any) -> str:
    """Return the examples of the section or, without one, the doctests of the text."""
    examples = "\n\n".join(str(content) for _, content in section)
    if not examples:
        try:
            found = doctest.DocTestParser().get_examples(text)
        except ValueError:  # inconsistent indentation
            found = []
        examples = "\n".join(_doctest(example) for example in found)
    lines = examples[: MAX_EXAMPLE_CHARS + 1].splitlines()
    return "\n".join(lines[:-1] if len(examples) > MAX_EXAMPLE_CHARS else lines)


def _doctest(example: doctest.Example) -> str:
    source = example.source.rstrip("\n").replace("\n", "\n... ")
    return f">>> {source}\n{example.want}".rstrip("\n")
