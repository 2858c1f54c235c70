"""Invariants of a decoded chunk that hold for the records of any teacher."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from shards.format.chunk import Chunk
from shards.format.messages import conversation_problem
from shards.format.relations import relation_problems


def chunk_problems(chunk: Chunk, vocab_size: int, *, absent: Collection[str] = ()) -> Iterator[str]:
    """Yield each violated invariant of a chunk, in a few words.

    Args:
        chunk: The decoded chunk.
        vocab_size: Upper bound of the ids.
        absent: Parts of the records that the cache lacks, `Layout.absent`.
    """
    yield from _value_problems(chunk, vocab_size, absent)
    yield from _head_and_draw_problems(chunk, vocab_size)
    if any(info.byte_end < info.byte_start for info in chunk.rows):
        yield "rows: a window that ends before it begins"
    yield from filter(None, map(conversation_problem, chunk.rows))
    if chunk.relations is not None:
        yield from relation_problems(chunk.relations)


def _value_problems(chunk: Chunk, vocab_size: int, absent: Collection[str]) -> Iterator[str]:
    for name, ids in (("tokens", chunk.tokens), ("head_ids", chunk.head_ids), ("draw_ids", chunk.draw_ids)):
        if len(ids) and (ids.min() < 0 or ids.max() >= vocab_size):
            yield f"{name}: ids from {ids.min()} to {ids.max()}, expected 0 to {vocab_size - 1}"
    unknown = {field for part, field in (("realised", "label_logp"), ("entropy", "entropy")) if part in absent}
    for name in ("label_logp", "entropy", "log_z", "head_probs", "tail_mass"):
        if name not in unknown and not np.isfinite(getattr(chunk, name)).all():
            yield f"{name}: values that are not finite"
    if (chunk.label_logp > 0).any():
        yield "label_logp: above 0"
    if "tail" in absent and chunk.tail_mass.any():
        yield "tail_mass: above 0 in a cache without tails"
    if len(chunk.tail_mass) and not (chunk.tail_mass.min() >= 0 and chunk.tail_mass.max() <= 1):
        yield "tail_mass: outside [0, 1]"


def _head_and_draw_problems(chunk: Chunk, vocab_size: int) -> Iterator[str]:
    heads, draws = np.diff(chunk.head_starts), np.diff(chunk.draw_starts)
    head_owner, draw_owner = np.repeat(np.arange(len(heads)), heads), np.repeat(np.arange(len(draws)), draws)
    total = chunk.tail_mass.astype(np.float64) + np.bincount(head_owner, chunk.head_probs, len(heads))
    if not (total == 1).all():
        yield f"mass: sums from {total.min()} to {total.max()}, expected exactly 1"
    if ((np.diff(chunk.head_probs) > 0) & (np.diff(head_owner) == 0)).any():
        yield "head_probs: rising within a position"
    if ((np.diff(chunk.draw_ids) < 0) & (np.diff(draw_owner) == 0)).any():
        yield "draw_ids: falling within a position"
    head_keys = head_owner.astype(np.int64) * vocab_size + chunk.head_ids
    if len(np.unique(head_keys)) != len(head_keys):
        yield "head_ids: an id twice within a position"
    if np.isin(draw_owner.astype(np.int64) * vocab_size + chunk.draw_ids, head_keys).any():
        yield "draw_ids: a draw that is in the head"
