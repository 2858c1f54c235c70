"""Conversion of a table's row into a raw document.

A row without a usable text becomes a document with a problem: it is counted and listed as dropped, and never ends a
dump.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from teacher_dump.corpus.document import Drop, RawDocument

TEXT_COLUMNS = ("content", "text", "code")
SOURCE_COLUMNS = ("max_stars_repo_name", "repo_name", "repository", "repo")
PATH_COLUMNS = ("max_stars_repo_path", "path", "file_path")
LICENCE_COLUMNS = ("max_stars_repo_licenses", "licenses", "license", "licence")
COLUMNS = (*TEXT_COLUMNS, *SOURCE_COLUMNS, *PATH_COLUMNS, *LICENCE_COLUMNS)
"""All columns that are read. Of several columns of one group, the first that is not null is used."""
EXPECTED_TEXT = f"expected the text in one of {', '.join(TEXT_COLUMNS)}"
"""Part of error messages."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DETAIL_CHARACTERS = 200


def printable(name: str | bytes) -> str:
    r"""Return a name as Unicode on one line: bytes that are not UTF-8 and control characters become \xNN.

    Args:
        name: A name from the file system or a table; surrogates stand for bytes that are not UTF-8.
    """
    encoded = _encode(name) if isinstance(name, str) else name
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", encoded.decode("utf-8", "backslashreplace"))


def unusable(reason: str, detail: str, *, source: str, path: str, content: bytes = b"") -> RawDocument:
    """Return a document without a usable text.

    Args:
        reason: Name under which it is counted.
        detail: What was found.
        source: Name of the source.
        path: Path in the source.
        content: Bytes that the digest in the drop log is computed from.
    """
    return RawDocument(
        text=content, source=source, path=path, licence=None, problem=Drop(reason, detail[:_DETAIL_CHARACTERS])
    )


def document_from_row(row: Mapping[str, Any], *, number: int, source: str) -> RawDocument:
    """Return the document of a table's row.

    Args:
        row: Values by column. Texts may be bytes, or contain surrogates for bytes that are not UTF-8.
        number: Row number from 0: the path of a row without one.
        source: Name of the table: the source of a row without a repository.
    """
    text = _first(row, TEXT_COLUMNS)
    path = _name(_first(row, PATH_COLUMNS), str(number))
    source = _name(_first(row, SOURCE_COLUMNS), source)
    if isinstance(text, str) and not text.isascii():
        text = _restore_bytes(text)
    if not isinstance(text, str | bytes):
        return unusable("no text", _why_no_text(row, text), source=source, path=path)
    return RawDocument(text=text, source=source, path=path, licence=licence_of(row))


def licence_of(row: Mapping[str, Any]) -> str | None:
    """Return the SPDX expression of a table's row, "" where its column is null, None where there is no column."""
    licence = _first(row, LICENCE_COLUMNS)
    if licence is None:
        return "" if any(name in row for name in LICENCE_COLUMNS) else None
    if isinstance(licence, list | tuple):
        # All licences found in the repository may apply.
        names = [_name(item, "") for item in licence]
        return names[0] if len(names) == 1 else " AND ".join(map(_operand, names))
    return _name(licence, "")


def _operand(expression: str) -> str:
    """Return a licence as an operand of AND: in parentheses unless it is one identifier."""
    return expression if re.fullmatch(r"[\w.+-]+", expression) else f"({expression})"


def _encode(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that does not stand for a byte
        return name.encode("utf-8", "surrogatepass")


def _first(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((row[n] for n in names if row.get(n) is not None), None)


def _name(value: Any, default: str) -> str:
    if value is None:
        return default
    return printable(value if isinstance(value, str | bytes) else str(value))


def _why_no_text(row: Mapping[str, Any], value: Any) -> str:
    if value is not None:
        name = next(n for n in TEXT_COLUMNS if row.get(n) is not None)
        return f"found {type(value).__name__} in {name}, expected a string"
    null = [n for n in TEXT_COLUMNS if n in row]
    if null:
        return f"{null[0]} is null"
    columns = ", ".join(map(printable, list(row)[:12])) or "none"
    return f"found columns {columns}, {EXPECTED_TEXT}"


def _restore_bytes(text: str) -> str | bytes:
    """Return the bytes of a text that was decoded with surrogates for bytes that are not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        try:
            return text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return text  # lone surrogates from JSON escapes: decoding reports them
    return text
