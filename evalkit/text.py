"""Text that is safe to show: control characters and lone surrogates are escaped.

What models write and what files are called can hold anything. A terminal obeys escape sequences, UTF-8 has no
lone surrogates, and bidirectional controls show text in another order than it is read.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters other than tab and newline
    "\u202a-\u202e\u2066-\u2069"  # bidirectional embeddings, overrides and isolates
    "\ud800-\udfff]"  # lone surrogates, also those that stand for undecodable bytes of a file name
)
_LINE_BREAKS = re.compile("[\n\u2028\u2029]")


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


def visible(text: str) -> str:
    r"""Return `text` with what cannot be shown written as Python does, such as `\x1b` or `\ud800`."""
    return _UNSAFE.sub(_escaped, text)


def one_line(text: str) -> str:
    r"""Return `visible(text)` without line breaks: each is written as `\n`; blanks at the ends are cut."""
    return _LINE_BREAKS.sub(_escaped, visible(text.strip()))
