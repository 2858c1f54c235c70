"""Split names and queries into the words that the index holds."""

from __future__ import annotations

import re

MAX_QUERY_CHARS = 10_000
"""Characters of a query that are read."""

MAX_WORDS = 64
"""Distinct words of a query that are searched; further ones are ignored."""

_WORD = re.compile(r"[^\W_]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_COMMON_TEXT = """
a an and any are as at be been being but by can could do does each every for from given gives has have how if in
into is it its may must no not of on one only or other our over return returned returning returns should so such
than that the their them then there these they this to use used uses using was we were what when where which while
whose will with would write you your def python function code program example examples
"""
_COMMON = frozenset(_COMMON_TEXT.split())
"""Words that questions hold whatever they ask for."""


def name_words(name: str) -> str:
    """Return a name with its parts apart: `numpy.DataFrame.to_csv` gives `numpy DataFrame to_csv Data Frame to csv`."""
    parts = name.split(".")
    humps = [piece for part in parts for word in _WORD.findall(part) for piece in _HUMP.split(word)]
    return " ".join([*parts, *(piece for piece in humps if piece not in parts)])


def query_words(query: str) -> list[str]:
    """Return the distinct words of a query in lower case, without those that every question holds.

    A query of common words alone keeps them.
    """
    words = [
        piece.lower()
        for word in _WORD.findall(query[:MAX_QUERY_CHARS])
        for piece in {word: None, **dict.fromkeys(_HUMP.split(word))}
    ]
    telling = [word for word in words if word not in _COMMON]
    return list(dict.fromkeys(telling or words))[:MAX_WORDS]


def query_names(query: str) -> list[str]:
    """Return the names in a query, in lower case: the whole query if it is one word, else what looks like code.

    Code is a name with a dot, an underscore or a capital inside, or one before a parenthesis.
    """
    query = query[:MAX_QUERY_CHARS]
    stripped = query.strip().removesuffix("()")
    if _NAME.fullmatch(stripped):
        return [stripped.lower()]
    names = []
    for match in _NAME.finditer(query):
        name = match.group()
        is_call = query[match.end() : match.end() + 1] == "("
        if is_call or "." in name or "_" in name.strip("_") or _HUMP.search(name):
            names.append(name.lower())
    return list(dict.fromkeys(names))[:MAX_WORDS]
