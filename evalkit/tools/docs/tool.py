"""The search in documentation as a tool: a query gives the entries that fit it best."""

from __future__ import annotations

from typing import Any

from evalkit.errors import EvalError
from evalkit.tasks.base import Problem
from evalkit.tools.base import ToolContext
from evalkit.tools.docs.entry import DocsEntry
from evalkit.tools.docs.index import DocsIndex
from evalkit.tools.docs.render import shown_entries

LIMIT = 3
"""Entries of one result."""
MAX_CHARS = 1500
"""Longest result, in characters."""
_NOTHING = "Nothing matches. Search for a part of a name, or for other words."
_EMPTY = "Write a name or a few words to search for."
_EXAMPLE = DocsEntry(
    name="textwrap.shorten",
    kind="function",
    signature="shorten(text, width, **kwargs)",
    summary="Collapse and truncate the given text to fit in the given width.",
)


class DocsTool:
    """Searches an index of documentation. See `Tool` for the interface."""

    name = "docs"
    start, end = "```docs", "\n```\n"
    system_text = (
        "You can search the documentation of the libraries while you write: write a name, or a few words that say what "
        "you need, and signatures and descriptions are given to you. Search before you call a function that you do not "
        "know."
    )
    # A page of the standard library: one of the index could be the page that a problem needs.
    example = ("cut a text to a width", shown_entries([_EXAMPLE], max_chars=MAX_CHARS))

    def __init__(self, context: ToolContext) -> None:
        """Open the index of `context`.

        Raises:
            EvalError: There is none, or it cannot be read.
        """
        if context.docs is None:
            raise EvalError(
                "the tool docs needs an index: name it with --docs, and build one with 'evalkit index-docs'"
            )
        self._index = DocsIndex.open(context.docs)

    def open(self, problem: Problem) -> DocsSession:
        """Begin the session of one answer; a search knows nothing of the problem."""
        return DocsSession(self._index)

    def to_dict(self) -> dict[str, Any]:
        """Return the digest and content of the index, and the limits of a result."""
        return {"entries": LIMIT, "characters": MAX_CHARS} | self._index.to_dict()

    def close(self) -> None:
        """Release the index."""
        self._index.close()


class DocsSession:
    """The searches of one answer, which share nothing. See `ToolSession` for the interface."""

    def __init__(self, index: DocsIndex) -> None:
        self._index = index

    def call(self, text: str) -> str:
        """Search for the model's text, and return the entries as the model reads them."""
        query = text.strip().strip("`\"'")
        if not query:
            return _EMPTY
        return shown_entries(self._index.search(query, LIMIT), max_chars=MAX_CHARS) or _NOTHING

    def close(self) -> None:
        """Do nothing: the tool holds the index."""
