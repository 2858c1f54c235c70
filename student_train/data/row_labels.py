"""Which tokens of a row are learned: those that have a position, without the tokens of the prefix.

A row's leading `context` tokens have no position (`shards.format.chunk`). The prefix tokens of a cache are no text
either, so a position that predicts one of them is left out.
"""

from __future__ import annotations

from shards.format.chunk import Chunk


def first_label(row: Chunk, *, skip: int) -> int:
    """Return the index of the first token of a row that is learned.

    Args:
        row: A chunk of one row.
        skip: Number of prefix tokens after a row's first token, which predict nothing in any row.
    """
    return max(row.rows[0].context, skip + 1)


def num_skipped(row: Chunk, *, skip: int) -> int:
    """Return the number of a row's first positions that are left out; `skip` is as in `first_label`."""
    return first_label(row, skip=skip) - row.rows[0].context


def num_labels(row: Chunk, *, skip: int) -> int:
    """Return the number of a row's tokens that are learned; `skip` is as in `first_label`."""
    return max(0, len(row.tokens) - first_label(row, skip=skip))
