"""Align rows of the teacher's tokens with the same text in the student's tokens.

All offsets are bytes of the row's text, which the teacher's tokens spell. So shards hold nothing about a student, and
no text is decoded and encoded in between. A *shared boundary* is a byte at which a token ends on both sides: there both
models predict the continuation of the same text. Boundaries inside a UTF-8 character, at the ends of a row, and before
its first token are not counted (a SentencePiece row may begin with a dummy space).

A row is left out where the student's tokenizer does not reproduce its bytes. A row that is too long for the student is
cut at a shared boundary. Both are counted.

Arrays hold several rows one after another. Shapes: R rows, P student positions, B shared boundaries, W word spans.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shards.format.chunk import Chunk, RowInfo
from student_train.cross_tokenizer.vocabulary import WHITESPACE, Vocabulary

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

MIN_WHITESPACE = 0.1
"""A word span ends only where the teacher gives whitespace at least this probability (gamma of ALM)."""

_IS_WHITE = np.zeros(256, dtype=np.bool_)
_IS_WHITE[list(WHITESPACE)] = True


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentRow:
    """A row in the student's tokens."""

    tokens: Int64
    """Token ids, the student's prefix first."""
    rows: tuple[RowInfo]
    """The origin of the row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alignment:
    """Rows of a batch in both tokenizers."""

    rows: list[StudentRow]
    """R rows in the student's tokens."""
    kept: list[int]
    """Number of each row among the given rows [R]."""
    label_P: Int64
    """The token that each student position predicts."""
    bytes_R: Int64
    """Bytes of text that the student positions of a row predict."""
    teacher_B: Int64
    """Teacher position that predicts after the boundary, counted over all given rows."""
    student_B: Int64
    """Student position that predicts after the boundary."""
    row_B: Int64
    """Row of the boundary, 0 to R - 1."""
    word_B: npt.NDArray[np.bool_]
    """Whether a word ends: no whitespace before the boundary, whitespace after it."""
    counts: Counter[str]
    """Counts of rows left out, rows cut, and student tokens cut off."""


def align(rows: list[Chunk], strings: list[bytes], student: Vocabulary, *, max_tokens: int = 2**31) -> Alignment:
    """Return rows in the tokens of a student, with the shared boundaries.

    Args:
        rows: Chunks of one row each.
        strings: Bytes of each teacher id; b"" for ids that are no text.
        student: The student's vocabulary.
        max_tokens: Most tokens of a row that the student reads.
    """
    counts: Counter[str] = Counter()
    texts = [_Text.of(row, strings) for row in rows]
    encoded = student.encode([text.raw[text.low : text.high].decode() for text in texts])
    room = max_tokens - len(student.prefix)
    kept: list[int] = []
    kept_texts: list[_Text] = []
    ids: list[Int64] = []
    for r, (text, tokens) in enumerate(zip(texts, encoded, strict=True)):
        joined = student.join(tokens)
        dummy = len(joined) == text.high - text.low + 1 and joined[:1] == b" "
        if joined[dummy:] != text.raw[text.low : text.high]:
            counts["rows left out: the student's tokenizer does not give their text back"] += 1
            continue
        text = replace(text, student_dummy=dummy)
        if len(tokens) > room:
            end = _cut(text, np.asarray(tokens), student.lengths, room)
            counts["rows cut to what the student reads"] += 1
            counts["student tokens cut off"] += len(tokens) - end
            tokens = tokens[:end]
        if len(tokens) + len(student.prefix) > 1:
            kept.append(r)
            kept_texts.append(text)
            ids.append(np.asarray(tokens, dtype=np.int64))
    # Teacher positions count over all given rows, kept or not.
    num_positions = [0] + [text.num_prefix + len(text.ends) - 1 for text in texts]
    first_R = np.cumsum(num_positions)[kept] + np.array([text.num_prefix for text in kept_texts], dtype=np.int64)
    return _shared_boundaries(kept_texts, kept, ids, student, first_R=first_R.astype(np.int64), counts=counts)


@dataclass(frozen=True, slots=True)
class _Text:
    """The text of a teacher's row."""

    info: RowInfo
    raw: bytes
    """UTF-8, without the dummy space."""
    low: int
    """Start of the whole characters: a row may begin inside a character."""
    high: int
    """End of the whole characters."""
    ends: Int64
    """Byte at which each text token ends."""
    num_prefix: int
    """Tokens before the first text token."""
    student_dummy: bool = False
    """Whether the student's tokens begin with a space that is not in the text."""

    @classmethod
    def of(cls, row: Chunk, strings: list[bytes]) -> _Text:
        info, tokens = row.rows[0], row.tokens.tolist()
        num_prefix = 0
        while num_prefix < len(tokens) and not strings[tokens[num_prefix]]:
            num_prefix += 1
        parts = [strings[token] for token in tokens[num_prefix:]]
        raw = b"".join(parts)
        dummy = info.byte_start == 0 and len(raw) == info.byte_end + 1 and raw[:1] == b" "
        ends = np.cumsum(np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))) - dummy
        raw = raw[dummy:]
        low = next((i for i, byte in enumerate(raw[:3]) if byte & 0xC0 != 0x80), len(raw[:3]))
        return cls(info=info, raw=raw, low=low, high=max(low, _last_whole(raw)), ends=ends, num_prefix=num_prefix)


def _last_whole(raw: bytes) -> int:
    """Return where the last whole character of `raw` ends."""
    for back in range(1, min(4, len(raw)) + 1):
        byte = raw[-back]
        if byte & 0xC0 != 0x80:
            length = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(raw) if length <= back else len(raw) - back
    return len(raw)


def _cut(text: _Text, tokens: Int64, lengths: Int64, room: int) -> int:
    """Return how many tokens are kept, at most `room`: up to a shared boundary, before a line if one is near."""
    ends = text.low - text.student_dummy + np.cumsum(lengths[tokens[:room]])
    shared = np.flatnonzero(np.isin(ends, text.ends))
    if not len(shared):
        return room
    raw = np.frombuffer(text.raw, dtype=np.uint8)
    at = ends[shared]
    line_ends = shared[(raw[at - 1] == 0x0A) & ~_IS_WHITE[raw[np.minimum(at, len(raw) - 1)]]]
    late = line_ends[line_ends > room // 2]
    return int((late if len(late) else shared)[-1]) + 1


class _TokenEnds(NamedTuple):
    """The text tokens of several rows, on one side."""

    end: Int64
    """Byte at which each token ends, in the joined text of the rows."""
    position: Int64
    """Position that predicts after each token."""
    counts_R: Int64
    """Tokens of each row."""

    def inside(self, starts_R: Int64) -> Int64:
        """Return the ends between each row's start and the end of its last token, both excluded."""
        inside: npt.NDArray[np.bool_] = self.end > np.repeat(starts_R, self.counts_R)
        inside[np.cumsum(self.counts_R) - 1] = False
        ends: Int64 = self.end[inside]
        return ends


def _shared_boundaries(
    texts: list[_Text],
    kept: list[int],
    ids: list[Int64],
    student: Vocabulary,
    *,
    first_R: Int64,
    counts: Counter[str],
) -> Alignment:
    """Return the alignment of the rows with these texts and student ids.

    `first_R` is the teacher position that predicts after the first text token of each row.
    """
    sizes_R = np.array([len(text.raw) for text in texts], dtype=np.int64)
    starts_R = np.cumsum(sizes_R) - sizes_R
    begins_R = np.array([text.low for text in texts], dtype=np.int64) + starts_R
    dummy_R = np.array([text.student_dummy for text in texts], dtype=np.int64)
    raw = np.frombuffer(b"".join(text.raw for text in texts), dtype=np.uint8)
    teacher_counts_R = np.array([len(text.ends) for text in texts], dtype=np.int64)
    teacher = _TokenEnds(
        end=_concatenate([text.ends for text in texts]) + np.repeat(starts_R, teacher_counts_R),
        position=_ranges(first_R, teacher_counts_R),
        counts_R=teacher_counts_R,
    )
    label = _concatenate(ids)
    ours, bytes_R = _student_tokens(ids, label, student, starts_R=begins_R - dummy_R)
    sides = np.zeros(len(raw) + 1, dtype=np.uint8)
    sides[teacher.inside(starts_R)] = 1
    sides[ours.inside(begins_R)] += 2
    boundary = np.flatnonzero(sides == 3)
    boundary = boundary[(raw[boundary] & 0xC0) != 0x80]
    unpredicted_R = dummy_R
    if not student.prefix and len(ids):
        # Nothing predicts the first token of a row.
        first = np.cumsum(ours.counts_R) - ours.counts_R
        unpredicted_R = student.lengths[label[first]]
        label = np.delete(label, first)
    prefix = np.asarray(student.prefix, dtype=np.int64)
    return Alignment(
        rows=[
            StudentRow(tokens=np.concatenate((prefix, tokens)), rows=(text.info,))
            for text, tokens in zip(texts, ids, strict=True)
        ],
        kept=kept,
        label_P=label,
        bytes_R=bytes_R - unpredicted_R,
        teacher_B=teacher.position[np.searchsorted(teacher.end, boundary)],
        student_B=ours.position[np.searchsorted(ours.end, boundary)],
        row_B=np.searchsorted(starts_R, boundary, side="right") - 1,
        word_B=~_IS_WHITE[raw[boundary - 1]] & _IS_WHITE[raw[boundary]],
        counts=counts,
    )


def _student_tokens(
    ids: list[Int64], label: Int64, student: Vocabulary, *, starts_R: Int64
) -> tuple[_TokenEnds, Int64]:
    """Return the student's tokens, and their bytes in each row; `starts_R` is the byte at which each row starts."""
    counts_R = np.array([len(tokens) for tokens in ids], dtype=np.int64)
    total = np.cumsum(student.lengths[label])
    bytes_R = np.diff(total[np.cumsum(counts_R) - 1], prepend=0) if len(ids) else total
    end = total + np.repeat(starts_R - (np.cumsum(bytes_R) - bytes_R), counts_R)
    has_prefix = len(student.prefix) > 0
    predicted_R = counts_R - (not has_prefix)
    return _TokenEnds(end, _ranges(np.cumsum(predicted_R) - predicted_R + has_prefix, counts_R), counts_R), bytes_R


def _ranges(starts: Int64, counts: Int64) -> Int64:
    """Return `counts[i]` consecutive numbers from each `starts[i]`, one range after another."""
    before = np.cumsum(counts) - counts
    numbers: Int64 = np.arange(int(counts.sum()), dtype=np.int64) + np.repeat(starts - before, counts)
    return numbers


def _concatenate(parts: list[Int64]) -> Int64:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spans:
    """Stretches of text between two boundaries of a row, as both models read them; most are words."""

    first_W: Int64
    """Student position that predicts the first token of the span."""
    end_W: Int64
    """Student position that predicts after the span."""
    teacher_W: Float32
    """Log of the teacher's probability of the span followed by whitespace."""
    boundary_W: Int64
    """Number of the boundary that ends the span."""


def word_spans(alignment: Alignment, *, label_logp: Float32, whitespace_logp: Float32, words: bool = True) -> Spans:
    """Return the spans of ALM (Minixhofer et al. 2025) with outcome debiasing.

    A span ends at a shared boundary where the teacher gives whitespace a probability above `MIN_WHITESPACE` and, with
    `words`, a word ends. Elsewhere it extends to the next such boundary. Text before the first such boundary of a row,
    and after its last, is in no span.

    Args:
        alignment: Rows in both tokenizers.
        label_logp: Stored log-probability of the label at each teacher position that `alignment` counts.
        whitespace_logp: Stored log of the mass on whitespace at these positions.
        words: Whether spans end at the end of words only.
    """
    is_end_B = np.exp(whitespace_logp[alignment.teacher_B]) > MIN_WHITESPACE
    if words:
        is_end_B &= alignment.word_B
    ends = np.flatnonzero(is_end_B)
    same_row = alignment.row_B[ends[1:]] == alignment.row_B[ends[:-1]]
    begin, end = ends[:-1][same_row], ends[1:][same_row]
    total = np.concatenate(([0.0], np.cumsum(label_logp.astype(np.float64))))
    teacher_W = total[alignment.teacher_B[end]] - total[alignment.teacher_B[begin]]
    return Spans(
        first_W=alignment.student_B[begin],
        end_W=alignment.student_B[end],
        teacher_W=(teacher_W + whitespace_logp[alignment.teacher_B[end]]).astype(np.float32),
        boundary_W=end,
    )
