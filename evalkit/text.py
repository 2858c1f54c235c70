"""Escape text for display: control characters, bidirectional controls and lone surrogates.

Model output and file names may hold any character. A terminal executes escape sequences, bidirectional controls change
the order in which text is displayed, and UTF-8 cannot encode lone surrogates.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters other than tab and newline
    "\u202a-\u202e\u2066-\u2069"  # bidirectional embeddings, overrides and isolates
    "\ud800-\udfff]"  # lone surrogates, such as undecodable bytes of a file name
)
_LINE_BREAKS = re.compile("[\n\u2028\u2029]")


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


def visible(text: str) -> str:
    r"""Return `text` with unsafe characters as Python escapes, such as `\x1b` or `\ud800`."""
    return _UNSAFE.sub(_escaped, text)


def one_line(text: str) -> str:
    r"""Return `visible(text)` on one line: line breaks are written as `\n`, and surrounding whitespace is cut."""
    return _LINE_BREAKS.sub(_escaped, visible(text.strip()))
