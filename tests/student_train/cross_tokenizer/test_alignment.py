"""Do two tokenizers meet where they must, on any text?"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from student_train.cross_tokenizer.alignment import align, word_spans
from student_train.cross_tokenizer.prefix_cells import exact_roots, prefix_roots
from student_train.cross_tokenizer.vocabulary import WHITESPACE, Vocabulary, load_vocabulary, require_round_trip
from student_train.errors import StudentError

PAIRS = [("sentencepiece", "byte-level"), ("plain", "byte-level"), ("byte-level", "sentencepiece")]
REAL = Path(__file__).parents[4] / "shared" / "data" / "tokenizers"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/tokenizers")

# What tokenizers stumble over, between arbitrary characters. U+2581 is SentencePiece's own sign for a space.
PARTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=20),
    st.sampled_from(
        ["\t", "\r\n", "\x00", "\n\n\n", "\n        ", " " * 17, "\U0001f600", "caf\u00e9", "e\u0301", "12345"]
    ),
    st.sampled_from(["<s>", "</s>", "<|endoftext|>", "<0x0A>", "return x", "x" * 300, "\u4e2d\u6587"]),
)
TEXTS = st.lists(PARTS, min_size=1, max_size=12).map("".join).filter(bool)


@pytest.mark.parametrize("name", ["sentencepiece", "plain", "byte-level"])
@settings(max_examples=30, deadline=None)
@given(text=TEXTS)
def test_tokens_spell_out_the_bytes_of_any_text(name: str, text: str, vocabularies: dict[str, Vocabulary]) -> None:
    require_round_trip(vocabularies[name], text)


@pytest.mark.parametrize("names", PAIRS)
@settings(max_examples=30, deadline=None)
@given(text=TEXTS, window=st.sampled_from([3, 17, 1000]))
def test_shared_boundaries_are_those_of_a_plain_search(
    names: tuple[str, str], text: str, window: int, vocabularies: dict[str, Vocabulary], cross: Any
) -> None:
    teacher, student = (vocabularies[name] for name in names)
    rows = cross.bare_rows(text, teacher, window=window)
    met = align(rows, teacher.strings, student)
    assert not met.counts
    position = base = 0
    for r, row in enumerate(rows):
        raw = b"".join(teacher.strings[t] for t in row.tokens)
        dummy = r == 0 and teacher.has_dummy
        ends = np.cumsum([len(teacher.strings[t]) for t in row.tokens]) - dummy
        raw = raw[dummy:]
        low = next((i for i, byte in enumerate(raw) if byte & 0xC0 != 0x80), len(raw))
        whole = raw[low:].decode(errors="ignore").encode()  # a window may begin or end inside a character
        if r in met.kept:
            mine = met.rows[met.kept.index(r)].tokens
            theirs = low + np.cumsum([len(student.strings[t]) for t in mine]) - student.has_dummy
            assert b"".join(student.strings[t] for t in mine)[student.has_dummy :] == whole
            shared = sorted(set(ends[1:-1]) & set(theirs[:-1]) - {0, low, len(raw)})
            shared = [e for e in shared if e > 0 and raw[e] & 0xC0 != 0x80]
            found = [b for b in range(len(met.row_B)) if met.row_B[b] == met.kept.index(r)]
            skip = len(student.prefix) == 0
            positions = len(mine) - 1
            assert len(found) == len(shared)
            for b, e in zip(found, shared, strict=True):
                assert met.teacher_B[b] - base == int(np.searchsorted(ends, e))
                local = int(np.searchsorted(theirs, e))
                assert met.student_B[b] - position == local
                assert met.label_P[met.student_B[b]] == mine[local + 1]
                word = raw[e - 1] not in WHITESPACE and raw[e] in WHITESPACE
                assert bool(met.word_B[b]) == word
            first = len(student.strings[mine[0]]) if skip else 0
            assert met.bytes_R[met.kept.index(r)] == len(whole) - first
            position += positions
        base += len(row.tokens) - 1
    assert len(met.label_P) == position


def test_a_row_that_begins_or_ends_inside_a_character_keeps_its_whole_characters(
    vocabularies: dict[str, Vocabulary], cross: Any
) -> None:
    teacher, student = vocabularies["sentencepiece"], vocabularies["byte-level"]
    for window in (1, 2, 3, 5, 7):
        rows = cross.bare_rows("a \U0001f600\U0001f601 b \U0001f602 return", teacher, window=window)
        met = align(rows, teacher.strings, student)
        assert not met.counts
        for row in met.rows:
            student.join(row.tokens.tolist()).decode()


@pytest.mark.parametrize("names", PAIRS)
def test_chunk_log_probabilities_sum_to_that_of_the_text(
    names: tuple[str, str], vocabularies: dict[str, Vocabulary], cross: Any
) -> None:
    teacher, student = (vocabularies[name] for name in names)
    row = cross.rows_of(cross.text, teacher, window=10_000)[0]
    met = align([row], teacher.strings, student)
    always = np.zeros_like(row.whitespace_logp)
    found = word_spans(met, label_logp=row.label_logp, whitespace_logp=always)
    start, stop = met.teacher_B[np.flatnonzero(met.word_B)[[0, -1]]]
    assert float(found.teacher_W.sum()) == pytest.approx(float(row.label_logp[start:stop].sum()), rel=1e-5)
    assert (found.first_W[1:] == found.end_W[:-1]).all()


def test_chunks_end_where_the_teacher_expects_whitespace(vocabularies: dict[str, Vocabulary], cross: Any) -> None:
    teacher, student = vocabularies["sentencepiece"], vocabularies["byte-level"]
    row = cross.rows_of(cross.text, teacher, window=10_000)[0]
    met = align([row], teacher.strings, student)
    every = word_spans(met, label_logp=row.label_logp, whitespace_logp=np.zeros_like(row.whitespace_logp))
    some = row.whitespace_logp.copy()
    doubtful = met.teacher_B[every.boundary_W[3]]
    some[:] = math.log(0.5)
    some[doubtful] = math.log(0.05)
    fewer = word_spans(met, label_logp=row.label_logp, whitespace_logp=some)
    assert len(fewer.first_W) == len(every.first_W) - 1
    assert every.boundary_W[3] not in fewer.boundary_W
    assert fewer.end_W[3] == every.end_W[4], "the chunk runs on to the next end"


def test_equal_tokenizers_share_every_boundary(vocabularies: dict[str, Vocabulary], cross: Any) -> None:
    for vocabulary in vocabularies.values():
        rows = cross.rows_of(cross.text, vocabulary, window=40)
        met = align(rows[:1], vocabulary.strings, vocabulary)
        inside = len(rows[0].tokens) - 1 - 1  # not after the prefix, not after the last token
        assert len(met.teacher_B) == inside
        assert met.label_P[met.student_B].tolist() == rows[0].tokens[2:].tolist()


def test_a_row_too_long_is_cut_before_a_line_and_counted(vocabularies: dict[str, Vocabulary], cross: Any) -> None:
    teacher, student = vocabularies["sentencepiece"], vocabularies["byte-level"]
    text = 3 * cross.text
    row = cross.bare_rows(text, teacher)[0]
    whole = align([row], teacher.strings, student)
    met = align([row], teacher.strings, student, max_tokens=100)
    kept = met.rows[0].tokens
    assert len(kept) <= 100
    assert kept.tolist() == whole.rows[0].tokens[: len(kept)].tolist()
    read = student.join(kept.tolist())
    assert read.endswith(b"\n")
    assert text.encode()[len(read) :][:1] not in (b" ", b"\t", b"\n")
    cut = len(whole.rows[0].tokens) - len(kept)
    assert met.counts == {"rows cut to what the student reads": 1, "student tokens cut off": cut}
    assert set(met.student_B) <= set(whole.student_B)


def test_a_row_that_does_not_round_trip_is_left_out_and_counted(
    vocabularies: dict[str, Vocabulary], cross: Any
) -> None:
    teacher, student = vocabularies["byte-level"], vocabularies["sentencepiece"]
    rows = cross.rows_of("x = 1\n", teacher) + cross.rows_of("a = '\u2581'\n", teacher)
    met = align(rows, teacher.strings, student)
    assert met.kept == [0]
    assert sum(met.counts.values()) == 1


def test_text_that_looks_like_a_special_token_is_text(vocabularies: dict[str, Vocabulary], cross: Any) -> None:
    student = vocabularies["byte-level"]
    met = align(cross.rows_of("'<|endoftext|>'\n", vocabularies["plain"]), vocabularies["plain"].strings, student)
    assert not met.counts
    assert b"<|endoftext|>" in student.join(met.rows[0].tokens.tolist())


def broken(folder: Path, out: Path, **changes: Any) -> Path:
    shutil.copytree(folder, out)
    data = json.loads((out / "tokenizer.json").read_text())
    for path, value in changes.items():
        node, *rest = path.split("__")
        target = data
        for part in (node, *rest[:-1]) if rest else ():
            target = target[part]
        target[rest[-1] if rest else node] = value(target[rest[-1] if rest else node])
    (out / "tokenizer.json").write_text(json.dumps(data))
    return out


def test_a_tokenizer_that_does_not_fit_is_refused_with_its_token(folders: dict[str, Path], tmp_path: Path) -> None:
    bent = broken(folders["byte-level"], tmp_path / "a", model__vocab=lambda v: {**v, "\u20ac": 2000})
    with pytest.raises(StudentError, match="token 2000 '\u20ac' is no byte-level piece"):
        load_vocabulary(bent)
    bent = broken(
        folders["sentencepiece"],
        tmp_path / "b",
        model__vocab=lambda v: {("<odd>" if p == "<0x41>" else p): i for p, i in v.items()},
    )
    with pytest.raises(StudentError, match="no token for the byte <0x41>"):
        load_vocabulary(bent)
    bent = broken(folders["byte-level"], tmp_path / "c", normalizer=lambda _: {"type": "Lowercase"})
    with pytest.raises(StudentError, match=r"token 65 'a' stands for b'a' where the text has b\"A:"):
        load_vocabulary(bent)
    bent = broken(folders["plain"], tmp_path / "d", model__type=lambda _: "WordLevel")
    with pytest.raises(StudentError, match="of another family"):
        load_vocabulary(bent)
    with pytest.raises(StudentError, match="the model has 300 ids"):
        load_vocabulary(folders["byte-level"], vocab_size=300)


@pytest.mark.parametrize("family", ["byte-level", "sentencepiece"])
def test_a_tokenizer_may_lack_a_control_character_and_leaves_out_the_rows_that_have_it(
    folders: dict[str, Path], vocabularies: dict[str, Vocabulary], tmp_path: Path, cross: Any, family: str
) -> None:
    piece = {"byte-level": "\u0104", "sentencepiece": "<0x04>"}[family]  # U+0004 as each of them writes it
    without = broken(
        folders[family],
        tmp_path / "t",
        model__vocab=lambda v: {("<odd>" if p == piece else p): i for p, i in v.items()},
    )
    rows = [*cross.rows_of("a = 1\n", vocabularies["plain"]), *cross.rows_of("a = '\x04'\n", vocabularies["plain"])]
    met = align(rows, vocabularies["plain"].strings, load_vocabulary(without))
    assert len(met.rows) == 1
    assert met.counts == {"rows left out: the student's tokenizer does not give their text back": 1}


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


@pytest.mark.parametrize("names", PAIRS)
def test_roots_are_prefixes_that_the_student_has(names: tuple[str, str], vocabularies: dict[str, Vocabulary]) -> None:
    teacher, student = (vocabularies[name] for name in names)
    roots = prefix_roots(teacher.strings, student)
    assert (np.diff(roots.low_R) > 0).all()
    assert sorted(roots.order_V) == list(range(len(student.strings)))
    by_number = {}
    for u, raw in enumerate(teacher.strings):
        r = roots.root_U[u]
        if not raw:
            assert r == -1
            continue
        assert r >= 0
        inside = [student.strings[v] for v in roots.order_V[roots.low_R[r] : roots.high_R[r]]]
        root = by_number[r] = inside[0]
        assert raw.startswith(root)
        assert sorted(inside) == sorted(s for s in student.strings if s.startswith(root))
    for r, root in by_number.items():
        nested = [other for other in by_number.values() if other != root and other.startswith(root)]
        own = [student.strings[v] for v in roots.order_V[roots.low_R[r] : roots.own_R[r]]]
        assert sorted(own) == sorted(
            s for s in student.strings if s.startswith(root) and not any(s.startswith(other) for other in nested)
        )


def test_the_root_of_blanks_is_what_the_student_writes_before_a_word(folders: dict[str, Path], tmp_path: Path) -> None:
    """GPT-2's rule, as SmolLM2 has it, leaves a word its last space; Phi-2's added tokens for spaces do not."""
    gpt2 = broken(folders["byte-level"], tmp_path / "t", added_tokens=lambda ts: [t for t in ts if t["special"]])
    for folder, spaces in ((folders["byte-level"], 4), (gpt2, 3)):
        student = load_vocabulary(folder)
        assert student.strings[student.encode(["    x"])[0][0]] == b" " * spaces
        roots = prefix_roots([b" " * 4, b" "], student)
        first = roots.order_V[roots.low_R[roots.root_U]]
        assert [student.strings[v] for v in first] == [b" " * spaces, b" "]


def test_matched_ids_are_equal_bytes_and_never_blanks_digits_or_line_breaks(
    vocabularies: dict[str, Vocabulary],
) -> None:
    teacher, student = vocabularies["sentencepiece"], vocabularies["byte-level"]
    prefix = prefix_roots(teacher.strings, student)
    roots = exact_roots(teacher.strings, student, prefix)
    assert roots.order_V is prefix.order_V
    own = set(student.strings)
    for u, raw in enumerate(teacher.strings):
        mapped = roots.root_U[u] >= 0
        assert mapped == bool(raw.strip() and raw in own and not any(c in b"0123456789\n" for c in raw))
        if mapped:
            same = roots.order_V[roots.low_R[roots.root_U[u]] : roots.high_R[roots.root_U[u]]]
            assert {student.strings[v] for v in same} == {raw}


@needs_real
def test_the_flagship_pair_agrees_on_where_text_goes(cross: Any) -> None:
    """The realised student token lies in the realised teacher token's cell nearly always."""
    import argparse
    import json as json_module
    import textwrap

    teacher = load_vocabulary(REAL / "llama-2")
    student = load_vocabulary(REAL / "phi-2", vocab_size=51_200)
    roots = prefix_roots(teacher.strings, student)
    inside = total = tokens = ends = 0
    for module in (argparse, textwrap, json_module):
        ids = teacher.encode([Path(module.__file__).read_text()])[0]
        row = cross.bare_rows(Path(module.__file__).read_text(), teacher)[0]
        met = align([row], teacher.strings, student)
        u = row.tokens[1:][met.teacher_B]
        inside += int(roots.holds(u, met.label_P[met.student_B]).sum())
        total += len(u)
        tokens += len(ids)
        ends += int(met.word_B.sum())
    assert inside / total > 0.99
    assert total / tokens > 0.8
    assert ends / tokens > 0.25
    assert student.prefix == ()
    assert teacher.prefix == (1,)


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
