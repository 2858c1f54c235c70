"""Filter by licence: an allow-list of SPDX identifiers, applied to SPDX expressions.

The default list holds permissive licences: those of The Stack, and other common ones that require attribution at most.
Weak copyleft (MPL, EPL, LGPL) is not included: The Stack removed those licences as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from teacher_dump.corpus.document import Drop
from teacher_dump.corpus.filters.base import Candidate
from teacher_dump.errors import DumpError

PERMISSIVE = (
    *("0BSD", "AFL-3.0", "Apache-2.0", "Artistic-2.0", "BlueOak-1.0.0", "BSD-1-Clause", "BSD-2-Clause"),
    *("BSD-2-Clause-Patent", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSD-3-Clause-No-Nuclear-License-2014"),
    *("BSD-Source-Code", "BSL-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0", "CNRI-Python", "curl", "ECL-2.0", "HPND"),
    *("ICU", "ISC", "Libpng", "MIT", "MIT-0", "MIT-CMU", "MIT-feh", "MIT-Modern-Variant", "MulanPSL-2.0", "NCSA"),
    *("OLDAP-2.8", "PostgreSQL", "PSF-2.0", "Python-2.0", "Python-2.0.1", "SHL-0.51", "TCL", "Unicode-DFS-2016"),
    *("Unlicense", "UPL-1.0", "W3C", "WTFPL", "X11", "Zlib", "ZPL-2.1"),
)
"""Licences that the word `permissive` stands for."""

ANY = "any"
_TOKEN = re.compile(r"[()]|[|/]+|[,&]+|[^\s()|/,&]+")
_OPERATORS = {"|": "or", "/": "or", ",": "and", "&": "and"}
"""Operators by the first character of the signs that are used in place of their names."""
_RESERVED = frozenset(("(", ")", "or", "and", "with"))


@dataclass(frozen=True, slots=True)
class LicenceFilter:
    """Drop a document without an allowed licence; in a corpus with a licence field, also one without a licence."""

    allowed: frozenset[str]
    """SPDX identifiers in lower case."""

    def __call__(self, candidate: Candidate) -> Drop | None:
        """Decide by the licence; a document of a corpus without a licence field is kept."""
        licence = candidate.licence
        if licence is None:
            return None
        if not licence:
            return Drop("licence not stated")
        return None if permits(licence, self.allowed) else Drop("licence not allowed", licence)


def allowed_licences(value: str) -> frozenset[str] | None:
    """Return the identifiers that a value of --licences allows, in lower case; None for any.

    Args:
        value: `any`, or identifiers separated by commas; `permissive` among them stands for PERMISSIVE.

    Raises:
        DumpError: The value has another form.
    """
    names = [name.strip() for name in value.split(",")]
    if names == [ANY]:
        return None
    if ANY in names or not all(re.fullmatch(r"[\w.+-]+", name) for name in names):
        raise DumpError(
            f"--licences {value}: expected any, or SPDX identifiers separated by commas such as permissive,MPL-2.0"
        )
    return frozenset(x.lower() for name in names for x in (PERMISSIVE if name == "permissive" else (name,)))


def permits(expression: str, allowed: frozenset[str]) -> bool:
    """Return whether the allowed licences satisfy an SPDX expression: all operands of an AND, one operand of an OR.

    AND binds more strongly than OR. A licence WITH an exception counts as the licence: an exception adds permissions.
    The signs `|` and `/` are read as OR, `,` and `&` as AND. An expression of another form is not satisfied.

    Args:
        expression: The expression, in any case.
        allowed: SPDX identifiers in lower case.
    """
    tokens = [_OPERATORS.get(token[0], token) for token in _TOKEN.findall(expression.lower())]
    tokens.reverse()  # the next token is the last one
    try:
        return _permits_or(tokens, allowed) and not tokens
    except (_MalformedExpression, IndexError, RecursionError):
        return False


class _MalformedExpression(ValueError):
    """A token where the grammar has none of its kind."""


def _permits_or(tokens: list[str], allowed: frozenset[str]) -> bool:
    permitted = _permits_and(tokens, allowed)
    while tokens and tokens[-1] == "or":
        tokens.pop()
        permitted = _permits_and(tokens, allowed) or permitted
    return permitted


def _permits_and(tokens: list[str], allowed: frozenset[str]) -> bool:
    permitted = _permits_licence(tokens, allowed)
    while tokens and tokens[-1] == "and":
        tokens.pop()
        permitted = _permits_licence(tokens, allowed) and permitted
    return permitted


def _permits_licence(tokens: list[str], allowed: frozenset[str]) -> bool:
    """Read a licence with its exception, or an expression in parentheses."""
    token = tokens.pop()
    if token == "(":
        permitted = _permits_or(tokens, allowed)
        if tokens.pop() != ")":
            raise _MalformedExpression
        return permitted
    if token in _RESERVED:
        raise _MalformedExpression
    if tokens and tokens[-1] == "with":
        tokens.pop()
        if tokens.pop() in _RESERVED:
            raise _MalformedExpression
    return token in allowed
