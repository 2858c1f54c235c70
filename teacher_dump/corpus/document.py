"""One document of a corpus."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A text and where it is from."""

    text: str
    source: str
    path: str
    licence: str
    """SPDX expression, "" where the corpus does not say."""
    sha256: str
    """Of the text's UTF-8 bytes, hex."""
