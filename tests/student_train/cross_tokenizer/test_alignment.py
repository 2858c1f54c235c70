"""Tests of the alignment of two tokenizers on arbitrary text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from student_train.cross_tokenizer.alignment import align, word_spans
from student_train.cross_tokenizer.vocabulary import WHITESPACE, Vocabulary
from tests.student_train.cross_tokenizer.conftest import PAIRS

# What tokenizers stumble over, between arbitrary characters. U+2581 is SentencePiece's own sign for a space.
PARTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=20),
    st.sampled_from(
        ["\t", "\r\n", "\x00", "\n\n\n", "\n        ", " " * 17, "\U0001f600", "caf\u00e9", "e\u0301", "12345"]
    ),
    st.sampled_from(["<s>", "</s>", "<|endoftext|>", "<0x0A>", "return x", "x" * 300, "\u4e2d\u6587"]),
)


TEXTS = st.lists(PARTS, min_size=1, max_size=12).map("".join).filter(bool)


@pytest.mark.parametrize("names", PAIRS)
@settings(max_examples=30, deadline=None)
@given(text=TEXTS, window=st.sampled_from([3, 17, 1000]))
def test_shared_boundaries_are_those_of_a_plain_search(
    names: tuple[str, str], text: str, window: int, vocabularies: dict[str, Vocabulary], cross: Any
) -> None:
    teacher, student = (vocabularies[name] for name in names)
    rows = cross.bare_rows(text, teacher, window=window)
    alignment = align(rows, teacher.strings, student)
    assert not alignment.counts
    position = base = 0
    for r, row in enumerate(rows):
        raw = b"".join(teacher.strings[t] for t in row.tokens)
        dummy = r == 0 and teacher.has_dummy
        ends = np.cumsum([len(teacher.strings[t]) for t in row.tokens]) - dummy
        raw = raw[dummy:]
        low = next((i for i, byte in enumerate(raw) if byte & 0xC0 != 0x80), len(raw))
        whole = raw[low:].decode(errors="ignore").encode()  # a window may begin or end inside a character
        if r in alignment.kept:
            mine = alignment.rows[alignment.kept.index(r)].tokens
            theirs = low + np.cumsum([len(student.strings[t]) for t in mine]) - student.has_dummy
            assert b"".join(student.strings[t] for t in mine)[student.has_dummy :] == whole
            shared = sorted(set(ends[1:-1]) & set(theirs[:-1]) - {0, low, len(raw)})
            shared = [e for e in shared if e > 0 and raw[e] & 0xC0 != 0x80]
            found = [b for b in range(len(alignment.row_B)) if alignment.row_B[b] == alignment.kept.index(r)]
            skip = len(student.prefix) == 0
            positions = len(mine) - 1
            assert len(found) == len(shared)
            for b, e in zip(found, shared, strict=True):
                assert alignment.teacher_B[b] - base == int(np.searchsorted(ends, e))
                local = int(np.searchsorted(theirs, e))
                assert alignment.student_B[b] - position == local
                assert alignment.label_P[alignment.student_B[b]] == mine[local + 1]
                word = raw[e - 1] not in WHITESPACE and raw[e] in WHITESPACE
                assert bool(alignment.word_B[b]) == word
            first = len(student.strings[mine[0]]) if skip else 0
            assert alignment.bytes_R[alignment.kept.index(r)] == len(whole) - first
            position += positions
        base += len(row.tokens) - 1
    assert len(alignment.label_P) == position


def test_a_row_that_begins_or_ends_inside_a_character_keeps_its_whole_characters(
    vocabularies: dict[str, Vocabulary], cross: Any
) -> None:
    teacher, student = vocabularies["sentencepiece"], vocabularies["byte-level"]
    for window in (1, 2, 3, 5, 7):
        rows = cross.bare_rows("a \U0001f600\U0001f601 b \U0001f602 return", teacher, window=window)
        alignment = align(rows, teacher.strings, student)
        assert not alignment.counts
        for row in alignment.rows:
            student.join(row.tokens.tolist()).decode()


@pytest.mark.parametrize("names", PAIRS)
def test_span_log_probabilities_sum_to_that_of_the_text(
    names: tuple[str, str], vocabularies: dict[str, Vocabulary], cross: Any
) -> None:
    teacher, student = (vocabularies[name] for name in names)
    row = cross.rows_of(cross.text, teacher, window=10_000)[0]
    alignment = align([row], teacher.strings, student)
    always = np.zeros_like(row.whitespace_logp)
    found = word_spans(alignment, label_logp=row.label_logp, whitespace_logp=always)
    start, stop = alignment.teacher_B[np.flatnonzero(alignment.word_B)[[0, -1]]]
    assert float(found.teacher_W.sum()) == pytest.approx(float(row.label_logp[start:stop].sum()), rel=1e-5)
    assert (found.first_W[1:] == found.end_W[:-1]).all()


def test_spans_end_where_the_teacher_expects_whitespace(vocabularies: dict[str, Vocabulary], cross: Any) -> None:
    teacher, student = vocabularies["sentencepiece"], vocabularies["byte-level"]
    row = cross.rows_of(cross.text, teacher, window=10_000)[0]
    alignment = align([row], teacher.strings, student)
    every = word_spans(alignment, label_logp=row.label_logp, whitespace_logp=np.zeros_like(row.whitespace_logp))
    some = row.whitespace_logp.copy()
    doubtful = alignment.teacher_B[every.boundary_W[3]]
    some[:] = math.log(0.5)
    some[doubtful] = math.log(0.05)
    fewer = word_spans(alignment, label_logp=row.label_logp, whitespace_logp=some)
    assert len(fewer.first_W) == len(every.first_W) - 1
    assert every.boundary_W[3] not in fewer.boundary_W
    assert fewer.end_W[3] == every.end_W[4], "the span extends to the next end"


def test_equal_tokenizers_share_every_boundary(vocabularies: dict[str, Vocabulary], cross: Any) -> None:
    for vocabulary in vocabularies.values():
        rows = cross.rows_of(cross.text, vocabulary, window=40)
        alignment = align(rows[:1], vocabulary.strings, vocabulary)
        inside = len(rows[0].tokens) - 1 - 1  # not after the prefix, not after the last token
        assert len(alignment.teacher_B) == inside
        assert alignment.label_P[alignment.student_B].tolist() == rows[0].tokens[2:].tolist()


def test_a_row_too_long_is_cut_before_a_line_and_counted(vocabularies: dict[str, Vocabulary], cross: Any) -> None:
    teacher, student = vocabularies["sentencepiece"], vocabularies["byte-level"]
    text = 3 * cross.text
    row = cross.bare_rows(text, teacher)[0]
    whole = align([row], teacher.strings, student)
    alignment = align([row], teacher.strings, student, max_tokens=100)
    kept = alignment.rows[0].tokens
    assert len(kept) <= 100
    assert kept.tolist() == whole.rows[0].tokens[: len(kept)].tolist()
    read = student.join(kept.tolist())
    assert read.endswith(b"\n")
    assert text.encode()[len(read) :][:1] not in (b" ", b"\t", b"\n")
    cut = len(whole.rows[0].tokens) - len(kept)
    assert alignment.counts == {"rows cut to what the student reads": 1, "student tokens cut off": cut}
    assert set(alignment.student_B) <= set(whole.student_B)


def test_a_row_that_does_not_round_trip_is_left_out_and_counted(
    vocabularies: dict[str, Vocabulary], cross: Any
) -> None:
    teacher, student = vocabularies["byte-level"], vocabularies["sentencepiece"]
    rows = cross.rows_of("x = 1\n", teacher) + cross.rows_of("a = '\u2581'\n", teacher)
    alignment = align(rows, teacher.strings, student)
    assert alignment.kept == [0]
    assert sum(alignment.counts.values()) == 1
