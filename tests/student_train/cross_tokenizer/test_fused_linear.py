"""Tests of every loss across tokenizers and its gradient against a dense float64 reference.

The reference works from strings: it joins tokens, compares `startswith`, forms [positions, vocabulary] whole, and lets
autograd differentiate. Shapes: P student positions, V vocabulary, H hidden.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from shards.format.chunk import Chunk
from student_train.cross_tokenizer.fused_linear import cross_loss, cross_scores, span_blocks
from student_train.cross_tokenizer.targets import CrossRows, TokenizerPair, cross_targets
from student_train.cross_tokenizer.terms import ALM_TEMPERATURE, IdOrder
from student_train.cross_tokenizer.vocabulary import WHITESPACE, Vocabulary
from student_train.losses import blockwise
from student_train.losses.blockwise import Projection
from tests.student_train.cross_tokenizer.conftest import LOSS_PAIRS

H = 8


KINDS = ("cells", "matched", "uld")


def made(found: CrossRows, vocab: int, *, seed: int = 0, sharpness: float = 1.0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    P = len(found.targets.label_P)
    hidden = torch.randn(P + 5, H, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocab, H, generator=generator, dtype=torch.float64) * sharpness
    bias = torch.randn(vocab, generator=generator, dtype=torch.float64)
    return hidden, weight, bias, torch.randperm(P + 5, generator=generator)[:P]


def walk(
    rows: list[Chunk], found: CrossRows, teacher: Vocabulary, student: Vocabulary
) -> list[tuple[int, int, int, int]]:
    """Return (row, byte, teacher position, student position) of every shared boundary, by a plain search."""
    alignment, base, position = [], 0, 0
    for r, row in enumerate(rows):
        dummy = r == 0 and teacher.has_dummy
        ends = (np.cumsum([len(teacher.strings[t]) for t in row.tokens]) - dummy).tolist()
        raw = b"".join(teacher.strings[t] for t in row.tokens)[dummy:]
        mine = found.rows[r].tokens.tolist()
        theirs = (np.cumsum([len(student.strings[t]) for t in mine]) - student.has_dummy).tolist()
        for j, end in enumerate(ends[:-1]):
            inside = 0 < end < len(raw) and raw[end] & 0xC0 != 0x80 and len(teacher.strings[row.tokens[j]])
            if inside and end in theirs[:-1]:
                alignment.append((r, end, base + j, position + theirs.index(end)))
        base += len(row.tokens) - 1
        position += len(mine) - 1
    return alignment


def text_of(row: Chunk, teacher: Vocabulary, *, first: bool) -> bytes:
    return b"".join(teacher.strings[t] for t in row.tokens)[first and teacher.has_dummy :]


def reference(
    name: str, rows: list[Chunk], found: CrossRows, logits_PV: torch.Tensor, teacher: Vocabulary, student: Vocabulary
) -> torch.Tensor:
    """Return the terms of one part, from its definition."""
    logp_PV = logits_PV.log_softmax(1)
    label_P = torch.from_numpy(np.concatenate([row.tokens[1:] for row in found.rows]))
    if name == "ce":
        return -logp_PV.gather(1, label_P[:, None])[:, 0]
    alignment = walk(rows, found, teacher, student)
    if name == "alm":
        return _alm(rows, alignment, logp_PV, label_P, teacher, student)
    position = {}
    base = 0
    for row in rows:
        for p in range(len(row.tokens) - 1):
            position[base + p] = row, p
        base += len(row.tokens) - 1
    if name == "matched":
        alignment = [
            here
            for here, there in itertools.pairwise(alignment)
            if here[0] == there[0] and there[2] == here[2] + 1 and there[3] == here[3] + 1
        ]
    judge = {"cells": _cells, "head cells": _head_cells, "matched": _matched, "uld": _uld}[name]
    return torch.stack([judge(*position[t], logp_PV[s], teacher, student) for _, _, t, s in alignment])


def _alm(rows, alignment, logp_PV, label_P, teacher, student):  # type: ignore[no-untyped-def]
    white_V = torch.tensor([s[:1] != b"" and s[:1] in WHITESPACE for s in student.strings])
    white_V[list(student.ends)] = True
    realised = np.concatenate([row.label_logp for row in rows]).astype(np.float64)
    white = np.concatenate([row.whitespace_logp for row in rows]).astype(np.float64)
    terms, last = [], None
    for here in alignment:
        r, end, t, s = here
        raw = text_of(rows[r], teacher, first=r == 0)
        if raw[end - 1 : end] in WHITESPACE or raw[end : end + 1] not in WHITESPACE or math.exp(white[t]) <= 0.1:
            continue
        if last is not None and last[0] == r:
            a = realised[last[2] : t].sum() + white[t]
            b = sum(logp_PV[p, label_P[p]] for p in range(last[3], s)) + logp_PV[s, white_V].logsumexp(0)
            a, b = a / ALM_TEMPERATURE - 1e-6, b / ALM_TEMPERATURE - 1e-6
            yes = math.exp(a)
            terms.append(yes * (a - b) + (1 - yes) * (math.log(1 - yes) - (1 - b.exp()).log()))
        last = here
    return torch.stack(terms)


def _root(u: int, teacher: Vocabulary, student: Vocabulary) -> bytes:
    raw = teacher.strings[u]
    if not raw or (raw.strip() and raw in student.strings):
        return raw
    try:
        text = raw.decode() + "x" * (not raw.strip())
    except UnicodeDecodeError:
        return raw if raw in student.strings else raw[:1]
    before = "\n" if student.has_dummy else ""
    joined = b""
    for token in student.encode([before + text])[0]:
        joined += student.strings[token]
        root = joined[student.has_dummy + len(before) :]
        if root:
            return root[: len(raw)]
    raise AssertionError


def _kl(q: dict[Any, float], cells: dict[Any, list[int]], logp_V: torch.Tensor) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for key, mass in q.items():
        P = logp_V[cells[key]].exp().sum() if cells[key] else torch.zeros((), dtype=torch.float64)
        if mass > 0:
            total = total + mass * (math.log(mass) - (P + 1e-8).log())
    return total


def _entries(row: Chunk, p: int) -> tuple[list[tuple[int, float]], list[int], float]:
    head = slice(int(row.head_starts[p]), int(row.head_starts[p + 1]))
    draws = slice(int(row.draw_starts[p]), int(row.draw_starts[p + 1]))
    pairs = list(zip(row.head_ids[head].tolist(), row.head_probs[head].astype(float).tolist(), strict=True))
    return pairs, row.draw_ids[draws].tolist(), float(row.tail_mass[p])


_ALL_ROOTS: dict[tuple[int, int], set[bytes]] = {}


def _cells(row: Chunk, p: int, logp_V: torch.Tensor, teacher: Vocabulary, student: Vocabulary) -> torch.Tensor:
    pair = id(teacher), id(student)
    if pair not in _ALL_ROOTS:
        _ALL_ROOTS[pair] = {_root(u, teacher, student) for u in range(len(teacher.strings))} - {b""}
    return _kl(*_cell_masses(row, p, teacher, student, all_roots=_ALL_ROOTS[pair]), logp_V)


def _head_cells(row: Chunk, p: int, logp_V: torch.Tensor, teacher: Vocabulary, student: Vocabulary) -> torch.Tensor:
    return _kl(*_cell_masses(row, p, teacher, student, all_roots=set()), logp_V)


def _cell_masses(
    row: Chunk, p: int, teacher: Vocabulary, student: Vocabulary, *, all_roots: set[bytes]
) -> tuple[dict[Any, float], dict[Any, list[int]]]:
    """Return the teacher's mass and the student's ids of each cell: True or False (of the head), and its root."""
    head, draws, tau = _entries(row, p)
    roots = {_root(u, teacher, student) for u, _ in head} - {b""}

    def cell(raw: bytes) -> tuple[bool, bytes]:
        for own, known in ((True, roots), (False, all_roots)):
            if longest := max((r for r in known if raw.startswith(r)), key=len, default=b""):
                return own, longest
        return False, b""

    q: dict[Any, float] = {(False, b""): 0.0}
    for root, mass in [*((_root(u, teacher, student), m) for u, m in head),
                       *((_root(u, teacher, student), tau / len(draws)) for u in draws)]:  # fmt: skip
        q[cell(root)] = q.get(cell(root), 0.0) + mass
    q[False, b""] = max(0.0, 1.0 - sum(mass for key, mass in q.items() if key[1]))
    members: dict[Any, list[int]] = {key: [] for key in q}
    for v, raw in enumerate(student.strings):
        key = cell(raw)
        members[key if key in q else (False, b"")].append(v)
    return q, members


def _matched(row: Chunk, p: int, logp_V: torch.Tensor, teacher: Vocabulary, student: Vocabulary) -> torch.Tensor:
    head, _, _ = _entries(row, p)
    members: dict[bytes, list[int]] = {b"": []}
    q = {b"": 0.0}
    for u, mass in head:
        raw = teacher.strings[u]
        fits = raw.strip() and raw in student.strings and not any(c in b"0123456789\n" for c in raw)
        key = raw if fits else b""
        q[key] = q.get(key, 0.0) + mass
        members.setdefault(key, [])
    for v, raw in enumerate(student.strings):
        members[raw if raw and raw in members else b""].append(v)
    q[b""] = max(0.0, 1.0 - sum(mass for r, mass in q.items() if r))
    return _kl(q, members, logp_V)


def _uld(row: Chunk, p: int, logp_V: torch.Tensor, teacher: Vocabulary, student: Vocabulary) -> torch.Tensor:
    head, _, _ = _entries(row, p)
    t = torch.tensor([mass for _, mass in head], dtype=torch.float64)
    s = logp_V.exp().sort(descending=True).values
    tail = max(0.0, 1.0 - float(t.sum()))
    return (s[: len(t)] - t).abs().sum() + (s[len(t) :].sum() - tail).abs()


def check(
    parts: dict[str, float], rows: list[Chunk], teacher: Vocabulary, student: Vocabulary, *, sharpness: float = 1.0
) -> None:
    tables = TokenizerPair.of(teacher.strings, student, tuple(name for name in parts if name != "ce"))
    found = cross_targets(rows, tables)
    hidden, weight, bias, index = made(found, len(student.strings), sharpness=sharpness)
    for x in (hidden, weight, bias):
        x.requires_grad_()
    logits_PV = hidden[index] @ weight.T + bias
    expected = {name: reference(name, rows, found, logits_PV, teacher, student) for name in parts}
    total = sum(scale * expected[name].sum() for name, scale in parts.items())
    total.backward()

    mine = [x.detach().float().requires_grad_() for x in (hidden, weight, bias)]
    out = cross_loss(
        mine[0],
        Projection(*mine[1:]),
        index_P=index,
        targets=found.targets,
        order=IdOrder.of(student, tables.roots),
        scales=parts,
    )
    out.loss.backward()
    for name, terms in expected.items():
        torch.testing.assert_close(out.terms[name].double(), terms.detach(), rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(out.loss.double(), total.detach(), rtol=2e-4, atol=2e-4)
    for got, want in zip(mine, (hidden, weight, bias), strict=True):
        torch.testing.assert_close(got.grad.double(), want.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "names", [LOSS_PAIRS[0], *(pytest.param(pair, marks=pytest.mark.slow) for pair in LOSS_PAIRS[1:])]
)
@pytest.mark.parametrize("parts", [("ce",), ("alm",), ("cells",), ("matched",), ("uld",), ("ce", "alm", "cells")])
def test_value_and_gradient_equal_the_dense_reference(
    names: tuple[str, str], parts: tuple[str, ...], vocabularies: dict[str, Vocabulary], cross: Any
) -> None:
    teacher, student = (vocabularies[name] for name in names)
    rows = cross.rows_of(cross.text, teacher, window=50)[:2]
    scales = {name: 0.1 * (i + 1) for i, name in enumerate(parts)}
    check(scales, rows, teacher, student)


@pytest.mark.parametrize("parts", [("ce", "alm", "cells"), ("alm", "matched")])
@pytest.mark.parametrize("sharpness", [pytest.param(0.1, marks=pytest.mark.slow), 3.0])
@pytest.mark.slow
def test_small_blocks_change_nothing(
    parts: tuple[str, ...],
    sharpness: float,
    vocabularies: dict[str, Vocabulary],
    cross: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks of 16 positions are shorter than some spans, and cut between others."""
    teacher, student = vocabularies["sentencepiece"], vocabularies["byte-level"]
    monkeypatch.setattr(blockwise, "BLOCK_ELEMENTS", 1)
    rows = cross.rows_of(cross.text + "x" * 40 + " y\n", teacher, window=80)
    found = cross_targets(rows, TokenizerPair.of(teacher.strings, student, parts))
    cut = list(span_blocks(found.targets, len(student.strings)))
    assert len(cut) > 3
    assert any(block.stop > block.end for block in cut)
    check(dict.fromkeys(parts, 0.1), rows, teacher, student, sharpness=sharpness)


@pytest.mark.parametrize("size", [1, 16 * 420 * 4, 33 * 420 * 4])
def test_blocks_divide_no_span_and_count_every_term_once(
    size: int, vocabularies: dict[str, Vocabulary], cross: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student = vocabularies["sentencepiece"], vocabularies["byte-level"]
    monkeypatch.setattr(blockwise, "BLOCK_ELEMENTS", size)
    targets = cross_targets(
        cross.rows_of(cross.text, teacher), TokenizerPair.of(teacher.strings, student, ("alm", "cells"))
    ).targets
    cut = list(span_blocks(targets, 420))
    assert [block.start for block in cut] == [0, *(block.end for block in cut[:-1])]
    assert cut[-1].end == len(targets.label_P)
    for name in ("spans", "boundaries"):
        slices = [getattr(block, name) for block in cut]
        assert [s.start for s in slices] == [0, *(s.stop for s in slices[:-1])]
    assert cut[-1].spans.stop == len(targets.first_W)
    assert cut[-1].boundaries.stop == len(targets.at_B)
    for block in cut:
        for first, end in zip(targets.first_W[block.spans], targets.end_W[block.spans], strict=True):
            assert block.start <= first < end <= block.end
            assert end < block.stop


def test_equal_models_on_equal_tokenizers_have_no_loss(vocabularies: dict[str, Vocabulary], cross: Any) -> None:
    """ALM is zero with token spans, and so is the KL on cells when the head holds every id."""
    vocabulary = vocabularies["byte-level"]
    row = cross.rows_of(cross.text, vocabulary, window=60, whole=True)[0]
    tables = TokenizerPair.of(vocabulary.strings, vocabulary, ("alm", "cells"))
    found = cross_targets([row], tables)
    V = len(vocabulary.strings)
    probs = np.zeros((len(row.tokens) - 1, V))
    at = np.repeat(np.arange(len(probs)), np.diff(row.head_starts))
    probs[at, row.head_ids] = row.head_probs
    # A hidden state per place and a projection that is their logits: the student is the teacher, without its prefix.
    logits = torch.from_numpy(np.log(np.maximum(probs, 1e-30))).float()[1:]
    eye = torch.eye(len(logits))
    weight = logits.T.contiguous().requires_grad_()
    scales = {"alm": 1.0, "cells": 1.0}
    out = cross_loss(
        eye, Projection(weight), index_P=torch.arange(len(logits)), targets=found.targets,
        order=IdOrder.of(vocabulary, tables.roots), scales=scales,
    )  # fmt: skip
    out.loss.backward()
    assert len(out.terms["alm"]) > 5
    torch.testing.assert_close(out.terms["alm"], torch.zeros_like(out.terms["alm"]), rtol=0, atol=2e-6)
    torch.testing.assert_close(out.terms["cells"], torch.zeros_like(out.terms["cells"]), rtol=0, atol=2e-5)
    torch.testing.assert_close(weight.grad, torch.zeros_like(weight), rtol=0, atol=2e-4)


def test_scores_equal_the_reference(vocabularies: dict[str, Vocabulary], cross: Any) -> None:
    teacher, student = vocabularies["sentencepiece"], vocabularies["byte-level"]
    rows = cross.rows_of(cross.text, teacher, window=50)[:2]
    tables = TokenizerPair.of(teacher.strings, student, ("alm", "matched")).to_measure()
    found = cross_targets(rows, tables)
    hidden, weight, bias, index = made(found, len(student.strings))
    logits_PV = hidden[index] @ weight.T + bias
    scores = cross_scores(
        hidden.float(),
        Projection(weight.float(), bias.float()),
        index_P=index,
        targets=found.targets,
        order=IdOrder.of(student, tables.roots),
    )
    torch.testing.assert_close(
        scores.nll_P.double(), reference("ce", rows, found, logits_PV, teacher, student), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        scores.cell_kl_B.double(), reference("head cells", rows, found, logits_PV, teacher, student),
        rtol=2e-4, atol=2e-4,
    )  # fmt: skip
    assert torch.equal(scores.hit_P, logits_PV.argmax(1) == found.targets.label_P)
    torch.testing.assert_close(scores.confidence_P.double(), logits_PV.softmax(1).amax(1), rtol=1e-4, atol=1e-4)
    assert len(scores.span_kl_W) == len(found.targets.first_W)
    assert len(scores.same_B) == len(found.targets.at_B)


def test_a_student_without_any_row_has_no_loss(vocabularies: dict[str, Vocabulary], cross: Any) -> None:
    teacher, student = vocabularies["byte-level"], vocabularies["sentencepiece"]
    tables = TokenizerPair.of(teacher.strings, student, ("alm", "cells"))
    found = cross_targets(cross.rows_of("a = '\u2581'\n", teacher), tables)
    assert found.rows == []
    hidden, weight = torch.zeros(2, H, requires_grad=True), torch.zeros(len(student.strings), H, requires_grad=True)
    out = cross_loss(
        hidden, Projection(weight), index_P=torch.zeros(0, dtype=torch.int64), targets=found.targets,
        order=IdOrder.of(student, tables.roots), scales={"ce": 1.0, "alm": 1.0, "cells": 1.0},
    )  # fmt: skip
    out.loss.backward()
    assert out.loss.item() == 0.0
    assert float(weight.grad.abs().sum()) == 0.0
