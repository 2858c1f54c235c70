"""Tests of roots and cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from student_train.cross_tokenizer.alignment import align
from student_train.cross_tokenizer.prefix_cells import exact_roots, prefix_roots
from student_train.cross_tokenizer.targets import TokenizerPair, cross_targets
from student_train.cross_tokenizer.vocabulary import Vocabulary, load_vocabulary
from tests.student_train.cross_tokenizer.conftest import PAIRS, REAL, edited_tokenizer, needs_real


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


def test_the_root_of_blanks_is_the_students_token_before_a_word(folders: dict[str, Path], tmp_path: Path) -> None:
    """GPT-2's rule, as SmolLM2 has it, leaves a word its last space; Phi-2's added tokens for spaces do not."""
    gpt2 = edited_tokenizer(
        folders["byte-level"], tmp_path / "t", added_tokens=lambda ts: [t for t in ts if t["special"]]
    )
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


@pytest.mark.slow
@needs_real
def test_the_flagship_pair_agrees_on_where_text_goes(cross: Any) -> None:
    """The student's label is nearly always in the cell of the teacher's label."""
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
        alignment = align([row], teacher.strings, student)
        u = row.tokens[1:][alignment.teacher_B]
        inside += int(roots.holds(u, alignment.label_P[alignment.student_B]).sum())
        total += len(u)
        tokens += len(ids)
        ends += int(alignment.word_B.sum())
    assert inside / total > 0.99
    assert total / tokens > 0.8
    assert ends / tokens > 0.25
    assert student.prefix == ()
    assert teacher.prefix == (1,)


@pytest.mark.parametrize("names", PAIRS)
def test_cells_hold_all_of_both_models(names: tuple[str, str], vocabularies: dict[str, Vocabulary], cross: Any) -> None:
    """Masses of the teacher sum to one; a student that has them all has every cell's own loss at zero."""
    teacher, student = (vocabularies[name] for name in names)
    rows = cross.rows_of(cross.text, teacher)
    for kind in ("cells", "matched"):
        targets = cross_targets(rows, TokenizerPair.of(teacher.strings, student, (kind,))).targets
        whole = targets.mass_BK.double().sum(1) + targets.other_B.double()
        torch.testing.assert_close(whole, torch.ones_like(whole), rtol=0, atol=1e-5)
        assert (targets.mass_BK >= 0).all()
        padded = targets.low_BK == len(student.strings)
        assert (targets.mass_BK[padded] == 0).all()
        assert (targets.high_BK[padded] == len(student.strings)).all()


@pytest.mark.parametrize("head_only", [False, True])
def test_draws_keep_the_masses_of_cells_unbiased(
    head_only: bool, vocabularies: dict[str, Vocabulary], cross: Any
) -> None:
    """Over many draws the mean mass of each cell is what all ids below the head would have brought it."""
    from student_train.cross_tokenizer.prefix_cells import partition, prefix_roots

    teacher, student = vocabularies["sentencepiece"], vocabularies["byte-level"]
    roots = prefix_roots(teacher.strings, student)
    rng = np.random.default_rng(0)
    usable = np.flatnonzero(teacher.lengths > 0)
    p = np.zeros(len(teacher.strings))
    p[usable] = rng.dirichlet(np.full(len(usable), 0.05))
    p[teacher.strings.index(b" ")] = p.max() + 0.2  # its cell holds all words that begin with a space
    p /= p.sum()
    order = np.argsort(-p)
    head, rest = order[:4], order[4:]
    tau = p[rest].sum()

    def masses(ids: np.ndarray, weight: np.ndarray) -> Any:
        zeros = np.zeros(len(head), dtype=np.int64)
        return partition(
            roots, boundaries=1, vocab_size=len(student.strings), head=(zeros, head, p[head]),
            top=(zeros[:1], head[:1]), draws=(np.zeros(len(ids), np.int64), ids, weight), head_only=head_only,
        )  # fmt: skip

    def by_first_id(found: Any) -> np.ndarray:
        mass = np.zeros(len(student.strings) + 1)
        mass[found.low_BK[0]] += found.mass_BK[0]
        return mass

    exact = masses(rest, p[rest])
    drawn = [masses(rng.choice(rest, size=8, p=p[rest] / tau), np.full(8, tau / 8)) for _ in range(2000)]
    mean = np.mean([by_first_id(d) for d in drawn], axis=0)
    np.testing.assert_allclose(mean, by_first_id(exact), atol=0.01)
    in_head = exact.mass_BK[0][np.isin(exact.low_BK[0], roots.low_R[roots.root_U[head]])].sum()
    assert in_head > p[head].sum() + 0.01, "some draws must fall into cells of the head for this to mean anything"
    if head_only:
        assert exact.mass_BK[0].sum() == pytest.approx(in_head)
    else:
        assert exact.mass_BK[0].sum() == pytest.approx(1.0, abs=1e-6), "all teacher ids have roots"


def test_a_tail_without_any_head_has_cells(vocabularies: dict[str, Vocabulary]) -> None:
    """A teacher so unsure that no id is above the threshold: every mass comes from draws."""
    from student_train.cross_tokenizer.prefix_cells import partition, prefix_roots

    teacher, student = vocabularies["sentencepiece"], vocabularies["byte-level"]
    roots = prefix_roots(teacher.strings, student)
    none, ids = np.zeros(0, np.int64), np.flatnonzero(teacher.lengths > 0)[:5]
    draws = np.zeros(len(ids), np.int64), ids, np.full(len(ids), 0.2)
    size = len(student.strings)
    for head_only, cells in ((False, len(set(roots.root_U[ids]))), (True, 0)):
        found = partition(
            roots, boundaries=1, vocab_size=size, head=(none, none, np.zeros(0)), top=(none, none), draws=draws,
            head_only=head_only,
        )  # fmt: skip
        assert (found.mass_BK > 0).sum() == cells
        assert found.mass_BK.sum() + found.other_B[0] == pytest.approx(1.0)
        assert found.top_B.tolist() == [-1]
