"""One document as its source has it, and the rules that turn a table's row into one.

A row without a usable text becomes a `Raw` with a problem: it is counted and listed as dropped, and never ends a dump.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TEXT = ("content", "text", "code")
SOURCE = ("max_stars_repo_name", "repo_name", "repository", "repo")
PATH = ("max_stars_repo_path", "path", "file_path")
LICENCE = ("max_stars_repo_licenses", "licenses", "license", "licence")
COLUMNS = (*TEXT, *SOURCE, *PATH, *LICENCE)
"""All columns that are read. Where a row has several of a group, the first that is not null counts."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_DETAIL = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Raw:
    """A document as its source has it."""

    text: str | bytes
    source: str
    path: str
    licence: str | None
    """None where the source has no field for it, "" where the field is empty."""
    problem: tuple[str, str] | None = None
    """Why there is no text to use: the name under which it is counted, and what was found."""


def printable(name: str | bytes) -> str:
    r"""Return a name that is Unicode on one line: bytes that are no UTF-8 and control characters become \xNN.

    Args:
        name: A name as the file system or a table has it; surrogates stand for bytes that are no UTF-8.
    """
    encoded = _encoded(name) if isinstance(name, str) else name
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", encoded.decode("utf-8", "backslashreplace"))


def _encoded(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return name.encode("utf-8", "surrogatepass")


def bad(why: str, detail: str, *, source: str, path: str, content: bytes = b"") -> Raw:
    """Return a document that cannot be used. `content` is what its digest in the list of dropped ones is of."""
    return Raw(text=content, source=source, path=path, licence=None, problem=(why, detail[:_LONGEST_DETAIL]))


def raw_of(row: Mapping[str, Any], *, number: int, source: str) -> Raw:
    """Return the document of a table's row.

    Args:
        row: Values by column. Texts may be bytes, or hold surrogates for bytes that are no UTF-8.
        number: Place in the table, from 0: the path of a row that has none.
        source: Name of the table, for a row that names no repository.
    """
    text = _first(row, TEXT)
    path = _name(_first(row, PATH), str(number))
    source = _name(_first(row, SOURCE), source)
    if isinstance(text, str) and not text.isascii():
        text = _as_bytes_if_not_unicode(text)
    if not isinstance(text, str | bytes):
        return bad(*_no_text(row, text), source=source, path=path)
    licence = _first(row, LICENCE)
    if licence is None:
        licence = "" if any(n in row for n in LICENCE) else None
    elif isinstance(licence, list | tuple):
        # What was found in one repository: all of them may apply.
        licence = " AND ".join(_name(each, "") for each in licence)
    else:
        licence = _name(licence, "")
    return Raw(text=text, source=source, path=path, licence=licence)


def expected_text() -> str:
    """Return where a row's text is expected, for messages."""
    return f"expected the text in one of {', '.join(TEXT)}"


def _first(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((row[n] for n in names if row.get(n) is not None), None)


def _name(value: Any, default: str) -> str:
    if value is None:
        return default
    return printable(value if isinstance(value, str | bytes) else str(value))


def _no_text(row: Mapping[str, Any], text: Any) -> tuple[str, str]:
    if text is not None:
        name = next(n for n in TEXT if row.get(n) is not None)
        return "no text", f"found {type(text).__name__} in {name}, expected a string"
    null = [n for n in TEXT if n in row]
    if null:
        return "no text", f"{null[0]} is null"
    columns = ", ".join(map(printable, list(row)[:12])) or "none"
    return "no text", f"found columns {columns}, {expected_text()}"


def _as_bytes_if_not_unicode(text: str) -> str | bytes:
    """Return the bytes of a text that was decoded with surrogates for bytes that are no UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        try:
            return text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return text  # lone surrogates of the JSON's own, which are counted as such
    return text
