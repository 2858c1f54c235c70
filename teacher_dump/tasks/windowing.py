"""Windowing: tokenise whole documents, and cut the token ids into rows at line starts.

A document is tokenised once and sliced, never tokenised again in parts, so that student and teacher see the ids of the
whole text. A cut falls before the last line in range that begins with a non-blank character: a token boundary in every
tokenizer that was measured. A block longer than a window has no such line; the cut then falls before an indented line,
or else anywhere. Each kind of cut is counted. Windows are never padded or joined.
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
from teacher_dump.corpus.document import Document
from teacher_dump.model.special_tokens import special_tokens

_BATCH_DOCUMENTS = 16
_BEFORE_LINE, _BEFORE_INDENTED, _INSIDE_LINE = 2, 1, 0
_CUT_COUNTS = {
    _BEFORE_LINE: "cuts before a line",
    _BEFORE_INDENTED: "cuts before an indented line",
    _INSIDE_LINE: "cuts inside a line",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The token ids of one row."""

    info: RowInfo
    tokens: npt.NDArray[np.int32]
    """[T], prefix tokens or the context included."""

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Tokens that have a position, [P]: those after the context."""
        return self.tokens[self.info.context :]


def cut_windows(
    documents: Iterable[Document],
    tokenizer: Any,
    *,
    prefix_tokens: tuple[int, ...],
    window_tokens: int,
    counts: Counter[str],
    drop: Callable[[Document, str], None] | None = None,
) -> Iterator[Window]:
    """Yield the windows of documents, in order.

    A document is dropped if its ids do not decode to the same text, or if it contains special tokens.

    Args:
        documents: The documents.
        tokenizer: A fast transformers tokenizer.
        prefix_tokens: Ids at the start of every window.
        window_tokens: Most tokens of a window, prefix included.
        counts: Receives the number of documents and of cuts by kind.
        drop: Called with a dropped document and the reason; by default `counts` counts it.
    """
    if drop is None:

        def drop(document: Document, reason: str) -> None:
            counts[f"dropped: {reason}"] += 1

    special = set(special_tokens(tokenizer).values())
    documents = iter(documents)
    while batch := list(islice(documents, _BATCH_DOCUMENTS)):
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


def byte_offsets(text: str, starts: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the UTF-8 byte offset of each character offset in a text."""
    if text.isascii():
        return np.asarray(starts, np.int64)
    widths = np.array([len(character.encode()) for character in text], np.int64)
    offsets: npt.NDArray[np.int64] = np.concatenate(([0], np.cumsum(widths)))[np.asarray(starts)]
    return offsets


def _cut(
    document: Document,
    ids: list[int],
    spans: list[tuple[int, int]],
    prefix: tuple[int, ...],
    window_tokens: int,
    counts: Counter[str],
) -> Iterator[Window]:
    text = document.text
    starts = np.array([start for start, _ in spans] + [len(text)])
    offsets = byte_offsets(text, starts)
    quality = _cut_quality(text, starts)
    room = window_tokens - len(prefix)
    begin, number = 0, 0
    while begin < len(ids):
        end = len(ids)
        if end - begin > room:
            end, kind = _best_cut(quality, begin, begin + room)
            counts[_CUT_COUNTS[kind]] += 1
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
    """Return the quality of a cut before each token.

    _BEFORE_LINE before a line that begins with a non-blank character. _BEFORE_INDENTED before an indented line, and
    before the line feed that ends a line. _INSIDE_LINE elsewhere. Some tokenizers merge a line feed with the
    indentation after it, others several line feeds, so that no cut falls between two line feeds.
    """
    quality = np.zeros(len(starts), np.uint8)
    for i, start in enumerate(starts[1:-1], 1):
        if starts[i - 1] < start:
            if text[start - 1] == "\n":
                quality[i] = _BEFORE_LINE if not text[start].isspace() else text[start] != "\n"
            elif text[start] == "\n":
                quality[i] = _BEFORE_INDENTED
    return quality


def _best_cut(quality: npt.NDArray[np.uint8], begin: int, limit: int) -> tuple[int, int]:
    """Return the last cut of the best quality in (begin, limit], and its quality."""
    for kind in (_BEFORE_LINE, _BEFORE_INDENTED):
        cuts = np.flatnonzero(quality[begin + 1 : limit + 1] == kind)
        if len(cuts):
            return int(begin + 1 + cuts[-1]), kind
    return limit, _INSIDE_LINE
