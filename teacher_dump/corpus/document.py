"""One document of a corpus: as its source holds it, and as text that passed decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Drop(NamedTuple):
    """The decision to drop a document."""

    reason: str
    """Name under which it is counted, and the `filter` in dropped.jsonl."""
    detail: str = ""
    """What was found in this document."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RawDocument:
    """A document as its source holds it."""

    text: str | bytes
    source: str
    path: str
    licence: str | None
    """None where the source has no field for it, "" where the field is empty."""
    problem: Drop | None = None
    """Why the document has no usable text, None where it has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A Unicode text with its origin."""

    text: str
    source: str
    """Repository, data set or folder."""
    path: str
    """Path in the source, or the row number."""
    licence: str
    """SPDX expression, "" where the corpus does not state it."""
    sha256: str
    """Digest of the text's UTF-8 bytes, hex."""


def decode(raw: RawDocument) -> tuple[Drop | None, str, bytes]:
    """Decode the text of a raw document.

    Returns:
        Why the text is unusable (None if it is usable), the text, and the bytes that the document's digest is
        computed from.
    """
    if raw.problem is not None:
        return raw.problem, "", raw.text if isinstance(raw.text, bytes) else raw.text.encode()
    try:
        text = raw.text.decode("utf-8") if isinstance(raw.text, bytes) else raw.text
        return None, text, text.encode("utf-8")
    except UnicodeDecodeError as error:
        return Drop("not UTF-8", f"byte {error.start}"), "", bytes(error.object)
    except UnicodeEncodeError as error:
        return Drop("lone surrogates", f"character {error.start}"), "", error.object.encode("utf-8", "replace")
