"""Entries as text for a model, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evalkit.tools.docs.entry import DocsEntry

_ENTRY_CHARS = (4000, 2400, 1600, 1000, 640, 400, 240, 160, 0)
"""Lengths of an entry, in characters, that are tried until all entries fit; 0 keeps the signature."""


def shown_entries(entries: Sequence[DocsEntry], *, max_chars: int) -> str:
    """Return entries as text of at most `max_chars` characters; "" if there are none."""
    return fitting_text(entries, budget=max_chars, measure=len)


def fitting_text(entries: Sequence[DocsEntry], *, budget: int, measure: Callable[[str], int]) -> str:
    """Return as many of the entries as fit, in their order, each as long as all of them can be.

    Long entries lose examples, then parameters, before an entry is left out. Signatures stay whole.

    Args:
        entries: The entries, the most important one first.
        budget: The size that the text may have.
        measure: Returns the size of a text, such as its number of tokens.
    """
    for count in range(len(entries), 0, -1):
        for chars in _ENTRY_CHARS:
            text = "\n\n".join(entry.text(max_chars=chars) for entry in entries[:count])
            if measure(text) <= budget:
                return text
    return ""
