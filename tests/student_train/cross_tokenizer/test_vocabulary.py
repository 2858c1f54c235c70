"""Tests of vocabularies as byte strings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from student_train.cross_tokenizer.alignment import align
from student_train.cross_tokenizer.vocabulary import Vocabulary, load_vocabulary, require_round_trip
from student_train.errors import StudentError
from tests.student_train.cross_tokenizer.conftest import REAL, TOKENIZERS, edited_tokenizer, needs_real

# What tokenizers stumble over, between arbitrary characters. U+2581 is SentencePiece's own sign for a space.
PARTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=20),
    st.sampled_from(
        ["\t", "\r\n", "\x00", "\n\n\n", "\n        ", " " * 17, "\U0001f600", "caf\u00e9", "e\u0301", "12345"]
    ),
    st.sampled_from(["<s>", "</s>", "<|endoftext|>", "<0x0A>", "return x", "x" * 300, "\u4e2d\u6587"]),
)


TEXTS = st.lists(PARTS, min_size=1, max_size=12).map("".join).filter(bool)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=30, deadline=None)
@given(text=TEXTS)
def test_tokens_spell_out_the_bytes_of_any_text(name: str, text: str, vocabularies: dict[str, Vocabulary]) -> None:
    require_round_trip(vocabularies[name], text)


def test_text_that_looks_like_a_special_token_is_text(vocabularies: dict[str, Vocabulary], cross: Any) -> None:
    student = vocabularies["byte-level"]
    alignment = align(cross.rows_of("'<|endoftext|>'\n", vocabularies["plain"]), vocabularies["plain"].strings, student)
    assert not alignment.counts
    assert b"<|endoftext|>" in student.join(alignment.rows[0].tokens.tolist())


def test_a_tokenizer_that_does_not_fit_is_refused_with_its_token(folders: dict[str, Path], tmp_path: Path) -> None:
    bent = edited_tokenizer(folders["byte-level"], tmp_path / "a", model__vocab=lambda v: {**v, "\u20ac": 2000})
    with pytest.raises(StudentError, match="token 2000 '\u20ac' is no byte-level piece"):
        load_vocabulary(bent)
    bent = edited_tokenizer(
        folders["sentencepiece"],
        tmp_path / "b",
        model__vocab=lambda v: {("<odd>" if p == "<0x41>" else p): i for p, i in v.items()},
    )
    with pytest.raises(StudentError, match="no token for the byte <0x41>"):
        load_vocabulary(bent)
    bent = edited_tokenizer(folders["byte-level"], tmp_path / "c", normalizer=lambda _: {"type": "Lowercase"})
    with pytest.raises(StudentError, match=r"token 65 'a' stands for b'a' where the text has b\"A:"):
        load_vocabulary(bent)
    bent = edited_tokenizer(folders["plain"], tmp_path / "d", model__type=lambda _: "WordLevel")
    with pytest.raises(StudentError, match="of another family"):
        load_vocabulary(bent)
    with pytest.raises(StudentError, match="the model has 300 ids"):
        load_vocabulary(folders["byte-level"], vocab_size=300)


@pytest.mark.parametrize("family", ["byte-level", "sentencepiece"])
def test_a_tokenizer_may_lack_a_control_character_and_leaves_out_the_rows_that_have_it(
    folders: dict[str, Path], vocabularies: dict[str, Vocabulary], tmp_path: Path, cross: Any, family: str
) -> None:
    piece = {"byte-level": "\u0104", "sentencepiece": "<0x04>"}[family]  # U+0004 as each of them writes it
    without = edited_tokenizer(
        folders[family],
        tmp_path / "t",
        model__vocab=lambda v: {("<odd>" if p == piece else p): i for p, i in v.items()},
    )
    rows = [*cross.rows_of("a = 1\n", vocabularies["plain"]), *cross.rows_of("a = '\x04'\n", vocabularies["plain"])]
    alignment = align(rows, vocabularies["plain"].strings, load_vocabulary(without))
    assert len(alignment.rows) == 1
    assert alignment.counts == {"rows left out: the student's tokenizer does not give their text back": 1}


def test_padded_and_special_ids_stand_for_nothing_and_equal_bytes_are_neighbours(
    folders: dict[str, Path], vocabularies: dict[str, Vocabulary]
) -> None:
    padded = load_vocabulary(folders["byte-level"], vocab_size=512)
    assert padded.strings[500] == b""
    assert padded.strings[0] == b""
    assert padded.ends == (0,)
    low, high = vocabularies["sentencepiece"].equal_to(b"r")
    assert high - low == 2  # the piece and <0x72>
    strings = vocabularies["sentencepiece"].strings
    assert {strings[i] for i in vocabularies["sentencepiece"].order[low:high]} == {b"r"}


@pytest.mark.slow
@needs_real
def test_duplicated_bytes_and_blanks_of_the_real_tokenizers(cross: Any) -> None:
    teacher = load_vocabulary(REAL / "llama-2")
    student = load_vocabulary(REAL / "phi-2", vocab_size=51_200)
    assert len(set(teacher.strings) - {b""}) == 31_901
    assert sum(raw == b"" for raw in student.strings) == 51_200 - 50_295 + 1
    eight = student.encode(["        return"])[0]
    assert [student.strings[i] for i in eight] == [b" " * 8, b"return"]
    seven = teacher.encode(["\n        return"])[0]
    assert [teacher.strings[i] for i in seven][-2:] == [b" " * 7, b" return"]
    assert dataclasses.is_dataclass(teacher)
