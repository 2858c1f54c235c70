"""How do two tokenizers meet? Rows of the teacher's tokens become rows of the student's, with the places they share.

Everything is counted in bytes of the row's own text, which the teacher's tokens spell out, so shards hold nothing
about a student and no text is decoded and encoded in between. A *shared boundary* is a byte at which a token ends on
both sides; there both models predict the same continuation of the same text. Boundaries inside a UTF-8 character, at
the ends of a row, and before its first token (a SentencePiece row may begin with a dummy space) are left out.

The arrays of several rows stand one after another. Shapes: R rows, P student positions, B shared boundaries, C chunks.
A row whose bytes the student's tokenizer cannot give back is left out, and one that is too long is cut at a shared
boundary; both are counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.format.chunk import Chunk, RowInfo
from student_train.cross_tokenizer.vocabulary import WHITESPACE, Vocabulary

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

MIN_WHITESPACE = 0.1
"""A chunk ends only where the teacher gives whitespace at least this probability (gamma of ALM)."""

_IS_WHITE = np.zeros(256, dtype=np.bool_)
_IS_WHITE[list(WHITESPACE)] = True


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentRow:
    """A row in the student's tokens."""

    tokens: Int64
    """Ids, the student's prefix first."""
    rows: tuple[RowInfo]
    """Where it is from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alignment:
    """Rows of a batch in both tokenizers."""

    rows: list[StudentRow]
    """R rows that the student can read."""
    kept: list[int]
    """[R] which of the teacher's rows they are."""
    label_P: Int64
    """The token that each student position predicts."""
    bytes_R: Int64
    """Bytes of text that a row's student positions predict."""
    teacher_B: Int64
    """Teacher position that predicts after the boundary, among those of all given rows, each from its first on."""
    student_B: Int64
    """Student position that predicts after the boundary."""
    row_B: Int64
    """The row, 0..R - 1."""
    word_B: npt.NDArray[np.bool_]
    """True where a word ends: not whitespace before the boundary, whitespace after."""
    counts: Counter[str]
    """Rows left out, rows cut, student tokens cut off."""


def align(rows: list[Chunk], strings: list[bytes], student: Vocabulary, *, max_tokens: int = 2**31) -> Alignment:
    """Return `rows` (chunks of one row) in the tokens of `student`.

    `strings` are the bytes of the teacher's ids, b"" for what is no text; `max_tokens` is the longest row that the
    student can read.
    """
    counts: Counter[str] = Counter()
    texts = [_Text.of(row, strings) for row in rows]
    found = student.encode([text.raw[text.low : text.high].decode() for text in texts])
    kept, ids = [], []
    for r, (text, tokens) in enumerate(zip(texts, found, strict=True)):
        joined = student.join(tokens)
        text.student_dummy = len(joined) == text.high - text.low + 1 and joined[:1] == b" "
        if joined[text.student_dummy :] != text.raw[text.low : text.high]:
            counts["rows left out: the student's tokenizer does not give their text back"] += 1
            continue
        room = max_tokens - len(student.prefix)
        if len(tokens) > room:
            end = _cut(text, np.asarray(tokens), student.lengths, room)
            counts["rows cut to what the student reads"] += 1
            counts["student tokens cut off"] += len(tokens) - end
            tokens = tokens[:end]
        if len(tokens) + len(student.prefix) > 1:
            kept.append(r)
            ids.append(np.asarray(tokens, dtype=np.int64))
    return _meet(texts, kept, ids, student, counts)


@dataclass(slots=True)
class _Text:
    """The text of a teacher's row."""

    info: RowInfo
    raw: bytes
    """Without the dummy space."""
    low: int
    """Where whole characters begin: a row may be cut inside one."""
    high: int
    """Where whole characters end."""
    ends: Int64
    """Byte at which each text token ends."""
    before: int
    """Position of the row that predicts its first text token; the row has no earlier one that predicts text."""
    student_dummy: bool = False

    @classmethod
    def of(cls, row: Chunk, strings: list[bytes]) -> _Text:
        info, tokens = row.rows[0], row.tokens.tolist()
        before = 0
        while before < len(tokens) and not strings[tokens[before]]:
            before += 1
        parts = [strings[token] for token in tokens[before:]]
        raw = b"".join(parts)
        dummy = info.byte_start == 0 and len(raw) == info.byte_end + 1 and raw[:1] == b" "
        ends = np.cumsum(np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))) - dummy
        raw = raw[dummy:]
        low = next((i for i, byte in enumerate(raw[:3]) if byte & 0xC0 != 0x80), len(raw[:3]))
        return cls(info=info, raw=raw, low=low, high=max(low, _last_whole(raw)), ends=ends, before=before)


def _last_whole(raw: bytes) -> int:
    """Return where the last whole character of `raw` ends."""
    for back in range(1, min(4, len(raw)) + 1):
        byte = raw[-back]
        if byte & 0xC0 != 0x80:
            needs = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(raw) if needs <= back else len(raw) - back
    return len(raw)


def _cut(text: _Text, tokens: Int64, lengths: Int64, room: int) -> int:
    """Return how many tokens stay, at most `room`: up to a shared boundary, before a line if one is near."""
    ends = text.low - text.student_dummy + np.cumsum(lengths[tokens[:room]])
    shared = np.flatnonzero(np.isin(ends, text.ends))
    if not len(shared):
        return room
    raw = np.frombuffer(text.raw, dtype=np.uint8)
    at = ends[shared]
    line = shared[(raw[at - 1] == 0x0A) & ~_IS_WHITE[raw[np.minimum(at, len(raw) - 1)]]]
    late = line[line > room // 2]
    return int((late if len(late) else shared)[-1]) + 1


def _meet(
    texts: list[_Text], kept: list[int], ids: list[Int64], student: Vocabulary, counts: Counter[str]
) -> Alignment:
    """Return the shared boundaries of the rows `kept`, whose student ids are `ids`."""
    first = len(student.prefix)
    prefix = np.asarray(student.prefix, dtype=np.int64)
    mine = [texts[r] for r in kept]
    sizes = np.array([len(text.raw) for text in mine], dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    raw = np.frombuffer(b"".join(text.raw for text in mine), dtype=np.uint8)

    # The teacher's positions count over all given rows, also those that are not kept.
    position_starts = np.cumsum([0] + [text.before + len(text.ends) - 1 for text in texts])
    teacher_counts = np.array([len(text.ends) for text in mine], dtype=np.int64)
    teacher_ends = _concatenate([text.ends for text in mine]) + np.repeat(starts, teacher_counts)
    teacher_at = _ranges(np.array([position_starts[r] + texts[r].before for r in kept], dtype=np.int64), teacher_counts)

    student_counts = np.array([len(tokens) for tokens in ids], dtype=np.int64)
    realised = _concatenate(ids)
    total = np.cumsum(student.lengths[realised])
    last = np.cumsum(student_counts)
    of_row = np.diff(total[last - 1], prepend=0) if len(ids) else total
    begins = np.array([text.low for text in mine], dtype=np.int64) + starts
    offset = begins - np.array([text.student_dummy for text in mine], dtype=np.int64)
    student_ends = total + np.repeat(offset - (np.cumsum(of_row) - of_row), student_counts)
    # Without a prefix nothing predicts a row's first token, so it has one position less.
    predicted = student_counts - (first == 0)
    student_at = _ranges(np.cumsum(predicted) - predicted + (first > 0), student_counts)

    meets = np.zeros(len(raw) + 1, dtype=np.uint8)
    teacher_on = _inside(teacher_ends, teacher_counts, starts)
    student_on = _inside(student_ends, student_counts, begins)
    meets[teacher_ends[teacher_on]] = 1
    meets[student_ends[student_on]] += 2
    boundary = np.flatnonzero(meets == 3)
    boundary = boundary[(raw[boundary] & 0xC0) != 0x80]
    is_predicted = np.ones(len(realised), dtype=np.bool_)
    unpredicted = np.array([text.student_dummy for text in mine], dtype=np.int64)
    if first == 0 and len(ids):
        is_predicted[last - student_counts] = False
        unpredicted = student.lengths[realised[last - student_counts]]
    return Alignment(
        rows=[
            StudentRow(tokens=np.concatenate((prefix, tokens)), rows=(text.info,))
            for text, tokens in zip(mine, ids, strict=True)
        ],
        kept=kept,
        label_P=realised[is_predicted],
        bytes_R=of_row - unpredicted,
        teacher_B=teacher_at[np.searchsorted(teacher_ends, boundary)],
        student_B=student_at[np.searchsorted(student_ends, boundary)],
        row_B=np.searchsorted(starts, boundary, side="right") - 1,
        word_B=~_IS_WHITE[raw[boundary - 1]] & _IS_WHITE[raw[boundary]],
        counts=counts,
    )


def _inside(ends: Int64, counts: Int64, starts: Int64) -> npt.NDArray[np.bool_]:
    """Return which tokens end inside their row: after its start, and before its last token's end."""
    found: npt.NDArray[np.bool_] = ends > np.repeat(starts, counts)
    found[np.cumsum(counts) - 1] = False
    return found


def _ranges(starts: Int64, counts: Int64) -> Int64:
    """Return starts[0], starts[0] + 1, ..., starts[1], ...: `counts` numbers from each start."""
    before = np.cumsum(counts) - counts
    return np.arange(int(counts.sum()), dtype=np.int64) + np.repeat(starts - before, counts)


def _concatenate(parts: list[Int64]) -> Int64:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spans:
    """Stretches of text between boundaries of one row, as both models read them; most are words."""

    first_W: Int64
    """Student position that predicts the chunk's first token."""
    end_W: Int64
    """One past the student position that predicts its last: the position that predicts what follows."""
    teacher_W: Float32
    """log of the teacher's probability of the chunk and of whitespace after it."""
    boundary_W: Int64
    """Number of the boundary that ends it."""


def word_spans(alignment: Alignment, *, realised_logp: Float32, whitespace_logp: Float32, words: bool = True) -> Spans:
    """Return the chunks of ALM (Minixhofer et al. 2025) with outcome debiasing.

    `realised_logp` and `whitespace_logp` are the records of the teacher's positions that `alignment` counts. A chunk
    ends at a shared boundary at which the teacher expects whitespace with `MIN_WHITESPACE` or more and, with `words`,
    a word does end; where that fails the chunk runs on to the next such boundary. What comes before a row's first
    such boundary and after its last is in no chunk.
    """
    ends = np.exp(whitespace_logp[alignment.teacher_B]) > MIN_WHITESPACE
    if words:
        ends &= alignment.word_B
    at = np.flatnonzero(ends)
    same = alignment.row_B[at[1:]] == alignment.row_B[at[:-1]]
    begin, end = at[:-1][same], at[1:][same]
    total = np.concatenate(([0.0], np.cumsum(realised_logp.astype(np.float64))))
    teacher = total[alignment.teacher_B[end]] - total[alignment.teacher_B[begin]]
    return Spans(
        first_W=alignment.student_B[begin],
        end_W=alignment.student_B[end],
        teacher_W=(teacher + whitespace_logp[alignment.teacher_B[end]]).astype(np.float32),
        boundary_W=end,
    )
