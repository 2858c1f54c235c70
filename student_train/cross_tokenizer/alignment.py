"""Align rows of the teacher's tokens with the same text in the student's tokens.

All offsets are bytes of the row's text, which the teacher's tokens spell. So shards hold nothing about a student, and
no text is decoded and encoded in between. A *shared boundary* is a byte at which a token ends on both sides: there both
models predict the continuation of the same text. Boundaries inside a UTF-8 character, at the ends of a row, and before
its first token are not counted (a SentencePiece row may begin with a dummy space).

Of a response only its own bytes are aligned. Its context is rendered anew, with the student's chat template. Both
models predict its first byte and the end of the turn, so these boundaries count (`row_text.py`), the first one where
neither side has a dummy space.

A row is left out where the student's tokenizer does not reproduce its bytes, where special tokens stand in the text of
a response, or where its context leaves no room. A row that is too long for the student is cut at a shared boundary. All
are counted.

Arrays hold several rows one after another. Shapes: R rows, P student positions, B shared boundaries, W word spans.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shards.format.chunk import Chunk, RowInfo
from student_train.cross_tokenizer.row_text import END, RowText, row_text
from student_train.cross_tokenizer.vocabulary import WHITESPACE, Vocabulary
from student_train.data.chat_template import StudentTemplate

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

MIN_WHITESPACE = 0.1
"""A word span ends only where the teacher gives whitespace at least this probability (gamma of ALM)."""

_IS_WHITE = np.zeros(256, dtype=np.bool_)
_IS_WHITE[list(WHITESPACE)] = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """How responses begin and end on both sides."""

    template: StudentTemplate
    """The student's chat template."""
    student_of: dict[int, int]
    """For each of the teacher's ids that end a turn, the student's id that gets its probability. As a label each of
    them becomes `template.end_of_turn`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentRow:
    """A row in the student's tokens."""

    tokens: Int64
    """Token ids: the student's prefix or context, then the text and the end of a turn."""
    rows: tuple[RowInfo]
    """The origin of the row."""
    first_label: int
    """Index of the first token that is learned; the tokens before it are context."""


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
    begin_B: npt.NDArray[np.bool_]
    """Whether a response begins."""
    end_B: npt.NDArray[np.bool_]
    """Whether the turn ends after the boundary."""
    counts: Counter[str]
    """Counts of rows left out, rows cut, and student tokens cut off."""


def align(
    rows: list[Chunk],
    strings: list[bytes],
    student: Vocabulary,
    *,
    turns: Turns | None = None,
    max_tokens: int = 2**31,
) -> Alignment:
    """Return rows in the tokens of a student, with the shared boundaries.

    Args:
        rows: Chunks of one row each.
        strings: Bytes of each teacher id; b"" for ids that are no text.
        student: The student's vocabulary.
        turns: How responses begin and end; None for rows that are documents.
        max_tokens: Most tokens of a row that the student reads.

    Raises:
        TrainError: The student's template cannot render the messages of a row, or a context has none.
    """
    counts: Counter[str] = Counter()
    ends = turns.student_of if turns else {}
    texts = [row_text(row, strings, ends=ends.keys()) for row in rows]
    encoded = student.encode([text.text.decode(errors="replace") for text in texts])
    kept: list[int] = []
    ours: list[_StudentTokens] = []
    for r, (text, tokens) in enumerate(zip(texts, encoded, strict=True)):
        fitted = _fit(text, tokens, student, turns, max_tokens, counts)
        if fitted is not None:
            kept.append(r)
            ours.append(fitted)
    # Teacher positions count over all given rows, kept or not.
    position_starts = np.cumsum([0] + [text.num_positions for text in texts])
    first_R = np.array([position_starts[r] + texts[r].num_prefix for r in kept], dtype=np.int64)
    return _shared_boundaries([texts[r] for r in kept], kept, ours, first_R=first_R, counts=counts)


class _StudentTokens(NamedTuple):
    """A row's text in the student's tokens."""

    before: Int64
    """Ids before the text: the prefix, or the context of a response."""
    ids: Int64
    """Ids of the text, and of the end of a turn."""
    ends: Int64
    """Byte at which each of `ids` ends; of a response the end of `BEGIN` comes first."""
    first: int
    """Position that predicts after the first of `ends`: 1, or 0 where nothing predicts what ends there."""
    has_dummy: bool
    """Whether the ids begin with a space that is not in the text."""
    num_bytes: int
    """Bytes of the text that positions predict."""

    @property
    def labels(self) -> Int64:
        """The ids that positions predict."""
        return self.ids if len(self.before) else self.ids[1:]


def _fit(
    text: RowText, tokens: list[int], student: Vocabulary, turns: Turns | None, max_tokens: int, counts: Counter[str]
) -> _StudentTokens | None:
    """Return a text in the student's tokens, cut to what it reads; None, and a count, for one that it cannot read."""
    joined = student.join(tokens)
    dummy = len(joined) == text.high - text.low + 1 and joined[:1] == b" "
    is_whole = not text.is_ended or text.raw[text.high :] == END
    if text.has_special:
        counts["rows left out: special tokens in the text of a response"] += 1
        return None
    if joined[dummy:] != text.text or not is_whole:
        counts["rows left out: the student's tokenizer does not give their text back"] += 1
        return None
    before = np.asarray(student.prefix, dtype=np.int64)
    if text.is_response:
        assert turns is not None, "a response needs a template"
        before = turns.template.context_ids(text.info.messages)
    room = max_tokens - len(before)
    if text.is_response and room < 1:
        counts["rows left out: their context is longer than the student reads"] += 1
        return None
    ended = [turns.template.end_of_turn] if text.is_ended and turns else []
    if len(tokens) + len(ended) > room:
        end = _cut(text, dummy, np.asarray(tokens), student.lengths, room)
        counts["rows cut to what the student reads"] += 1
        counts["student tokens cut off"] += len(tokens) + len(ended) - end
        tokens, ended = tokens[:end], []
    sizes = student.lengths[np.asarray(tokens, dtype=np.int64)]
    ends = text.low - dummy + np.cumsum(sizes)
    if text.is_response:
        ends = np.concatenate(([text.low], ends, [len(text.raw)] if ended else [])).astype(np.int64)
    first = int(len(before) > 0 and not text.is_response)
    unpredicted = int(dummy) if len(before) or not tokens else int(sizes[0])
    ids = np.asarray([*tokens, *ended], dtype=np.int64)
    fitted = _StudentTokens(before, ids, ends, first, dummy, int(sizes.sum()) - unpredicted)
    return fitted if len(fitted.labels) else None


def _cut(text: RowText, dummy: bool, tokens: Int64, lengths: Int64, room: int) -> int:
    """Return how many tokens are kept, at most `room`: up to a shared boundary, before a line if one is near."""
    ends = text.low - dummy + np.cumsum(lengths[tokens[:room]])
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

    @classmethod
    def of(cls, ends: list[Int64], starts_R: Int64, first_R: Int64) -> _TokenEnds:
        """Return the ends of the rows' tokens.

        Args:
            ends: Byte at which each token of a row ends, in the text of the row.
            starts_R: Start of each row in the joined text.
            first_R: Position that predicts after the first token of each row.
        """
        counts_R = np.array([len(row) for row in ends], dtype=np.int64)
        return cls(_concatenate(ends) + np.repeat(starts_R, counts_R), _ranges(first_R, counts_R), counts_R)

    def inside(self, starts_R: Int64) -> Int64:
        """Return the ends between each row's start and the end of its last token, both excluded."""
        inside: npt.NDArray[np.bool_] = self.end > np.repeat(starts_R, self.counts_R)
        inside[np.cumsum(self.counts_R) - 1] = False
        ends: Int64 = self.end[inside]
        return ends


def _shared_boundaries(
    texts: list[RowText], kept: list[int], ours: list[_StudentTokens], *, first_R: Int64, counts: Counter[str]
) -> Alignment:
    """Return the alignment of the rows with these texts and student tokens.

    `first_R` is the teacher position that predicts after the first token of each row's text.
    """
    sizes_R = np.array([len(text.raw) for text in texts], dtype=np.int64)
    starts_R = np.cumsum(sizes_R) - sizes_R
    raw = np.frombuffer(b"".join(text.raw for text in texts), dtype=np.uint8)
    positions_R = np.array([len(tokens.labels) for tokens in ours], dtype=np.int64)
    our_first_R = np.cumsum(positions_R) - positions_R + np.array([tokens.first for tokens in ours], dtype=np.int64)
    teacher = _TokenEnds.of([text.ends for text in texts], starts_R, first_R)
    student = _TokenEnds.of([tokens.ends for tokens in ours], starts_R, our_first_R)
    is_response_R = np.array([text.is_response for text in texts], dtype=np.bool_)
    low_R = np.array([text.low for text in texts], dtype=np.int64)
    sides = np.zeros(len(raw) + 1, dtype=np.uint8)
    sides[teacher.inside(starts_R)] = 1
    sides[student.inside(starts_R + np.where(is_response_R, 0, low_R))] += 2
    boundary = np.flatnonzero(sides == 3)
    boundary = boundary[(raw[boundary] & 0xC0) != 0x80]
    row_B = np.searchsorted(starts_R, boundary, side="right") - 1
    begin_B = is_response_R[row_B] & (boundary == (starts_R + low_R)[row_B])
    # A dummy space at the begin of a response is no text: behind it the models predict something else.
    dummy_R = np.array([a.has_dummy or b.has_dummy for a, b in zip(texts, ours, strict=True)], dtype=np.bool_)
    usable_B = ~(begin_B & dummy_R[row_B])
    boundary, row_B, begin_B = boundary[usable_B], row_B[usable_B], begin_B[usable_B]
    is_ended_R = np.array([text.is_ended for text in texts], dtype=np.bool_)
    return Alignment(
        rows=[
            StudentRow(
                tokens=np.concatenate((tokens.before, tokens.ids)),
                rows=(text.info,),
                first_label=max(1, len(tokens.before)),
            )
            for text, tokens in zip(texts, ours, strict=True)
        ],
        kept=kept,
        label_P=_concatenate([tokens.labels for tokens in ours]),
        bytes_R=np.array([tokens.num_bytes for tokens in ours], dtype=np.int64),
        teacher_B=teacher.position[np.searchsorted(teacher.end, boundary)],
        student_B=student.position[np.searchsorted(student.end, boundary)],
        row_B=row_B,
        word_B=~_IS_WHITE[raw[boundary - 1]] & _IS_WHITE[raw[boundary]],
        begin_B=begin_B,
        end_B=is_ended_R[row_B] & (boundary == (starts_R + sizes_R - len(END))[row_B]),
        counts=counts,
    )


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
    and after its last, is in no span. The first span of a response begins with it.

    Args:
        alignment: Rows in both tokenizers.
        label_logp: Stored log-probability of the label at each teacher position that `alignment` counts.
        whitespace_logp: Stored log of the mass on whitespace at these positions.
        words: Whether spans end at the end of words only.
    """
    is_end_B = np.exp(whitespace_logp[alignment.teacher_B]) > MIN_WHITESPACE
    if words:
        is_end_B &= alignment.word_B
    is_end_B |= alignment.begin_B
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
