"""Filter by properties of one text: size, line lengths, share of letters and digits.

The limits on lines and characters are those of the Codex paper (Chen et al., arXiv 2107.03374, section 3.1: average
line length over 100, longest line over 1000, few alphanumeric characters). The paper does not give the least share of
alphanumeric characters; 0.25 is CodeParrot's.
"""

from __future__ import annotations

from dataclasses import dataclass

from teacher_dump.corpus.document import Drop
from teacher_dump.corpus.filters.base import Candidate, Filter


def drop_blank(candidate: Candidate) -> Drop | None:
    """Drop a text of white space."""
    return None if candidate.document.text.strip() else Drop("blank")


def drop_large(max_bytes: int) -> Filter:
    """Return the filter that drops a text of more than `max_bytes` UTF-8 bytes."""

    def check(candidate: Candidate) -> Drop | None:
        num_bytes = len(candidate.document.text.encode())
        return Drop(f"over {max_bytes:,} bytes", f"{num_bytes:,} bytes") if num_bytes > max_bytes else None

    return check


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLimits:
    """Drop a text that is blank, binary, or outside a limit."""

    max_bytes: int
    max_line: int
    """Characters of the longest line."""
    max_mean_line: float
    """Characters of a line, on average."""
    min_alphanumeric: float
    """Share of letters and digits among the characters."""

    def __call__(self, candidate: Candidate) -> Drop | None:
        """Return the first limit that the text exceeds."""
        text = candidate.document.text
        if (blank := drop_blank(candidate)) is not None:
            return blank
        if "\0" in text:
            return Drop("not text (holds NUL)")
        if (large := drop_large(self.max_bytes)(candidate)) is not None:
            return large
        lines = text.splitlines()
        if (longest := max(map(len, lines))) > self.max_line:
            return Drop(f"a line over {self.max_line:,} characters", f"{longest:,} characters")
        if (mean := sum(map(len, lines)) / len(lines)) > self.max_mean_line:
            return Drop(f"lines over {self.max_mean_line:g} characters on average", f"{mean:.0f} characters")
        if (share := sum(map(str.isalnum, text)) / len(text)) < self.min_alphanumeric:
            return Drop(f"under {self.min_alphanumeric:.0%} letters and digits", f"{share:.1%}")
        return None
