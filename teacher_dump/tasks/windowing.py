"""How is a document cut into rows? Token ids of the whole document, sliced where a cut does no harm.

A document is tokenised once and sliced, never tokenised again in parts: both models then see what they would see in
the whole text. A cut falls before the last line in the room that begins with a non-blank character, which is a token
boundary in every tokenizer that was measured. Where a block is longer than a window there is no such line: then before
an indented line, else anywhere, and each kind is counted. Windows are never padded or joined.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.format.chunk import RowInfo
from teacher_dump.corpus import Document

_BATCH = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The token ids of one row, prefix tokens included."""

    info: RowInfo
    tokens: npt.NDArray[np.int32]


def windows(
    documents: Iterable[Document],
    tokenizer: Any,
    *,
    prefix_tokens: tuple[int, ...],
    window_tokens: int,
    counts: Counter[str],
    drop: Callable[[Document, str], None] | None = None,
) -> Iterator[Window]:
    """Yield the windows of documents in order, each of at most `window_tokens` tokens, prefix included.

    Documents whose ids do not decode to the same text, or that contain special tokens, are dropped: `drop` is called
    with the document and why; without it they are counted.
    """
    if drop is None:

        def drop(document: Document, why: str) -> None:
            counts[f"dropped: {why}"] += 1

    special = set(tokenizer.all_special_ids)
    documents = iter(documents)
    while batch := list(islice(documents, _BATCH)):
        encoded = tokenizer(
            [d.text for d in batch], add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False
        )
        for document, ids, spans in zip(batch, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            if special.intersection(ids):
                drop(document, "contains special tokens")
            elif tokenizer.decode(ids, clean_up_tokenization_spaces=False) != document.text:
                drop(document, "tokenizer does not round-trip")
            else:
                counts["documents"] += 1
                yield from _cut(document, ids, spans, prefix_tokens, window_tokens, counts)


def _cut(
    document: Document,
    ids: list[int],
    spans: list[tuple[int, int]],
    prefix: tuple[int, ...],
    window_tokens: int,
    counts: Counter[str],
) -> Iterator[Window]:
    text = document.text
    starts = np.array([s for s, _ in spans] + [len(text)])
    # Byte offset of each token's first character.
    if text.isascii():
        offsets = starts
    else:
        widths = np.array([len(c.encode()) for c in text])
        offsets = np.concatenate(([0], np.cumsum(widths)))[starts]
    quality = _cut_quality(text, starts)
    room = window_tokens - len(prefix)
    begin, number = 0, 0
    while begin < len(ids):
        end = len(ids)
        if end - begin > room:
            end, kind = _best_cut(quality, begin, begin + room)
            counts[kind] += 1
        yield Window(
            info=RowInfo(
                document=document.sha256,
                window=number,
                byte_start=int(offsets[begin]),
                byte_end=int(offsets[end]),
                source=document.source,
                path=document.path,
                licence=document.licence,
            ),
            tokens=np.array([*prefix, *ids[begin:end]], dtype=np.int32),
        )
        begin, number = end, number + 1


def _cut_quality(text: str, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Return for each token how good a cut before it is: 2 before a line that begins with a non-blank, 1 before
    an indented line or the line feed that ends a line, 0 elsewhere.

    Some tokenizers join a line feed with the indentation after it, others several line feeds: between two line feeds
    is no place to cut.
    """
    quality = np.zeros(len(starts), np.uint8)
    for i, s in enumerate(starts[1:-1], 1):
        if starts[i - 1] < s:
            if text[s - 1] == "\n":
                quality[i] = 2 if not text[s].isspace() else text[s] != "\n"
            elif text[s] == "\n":
                quality[i] = 1
    return quality


_KINDS = {2: "cuts before a line", 1: "cuts before an indented line", 0: "cuts inside a line"}


def _best_cut(quality: npt.NDArray[np.uint8], begin: int, limit: int) -> tuple[int, str]:
    """Return the last of the best cuts in the room, the limit where there is none."""
    for wanted in (2, 1):
        found = np.flatnonzero(quality[begin + 1 : limit + 1] == wanted)
        if len(found):
            return int(begin + 1 + found[-1]), _KINDS[wanted]
    return limit, _KINDS[0]
