"""Responses for a student with another tokenizer: its own template, the response's bytes, and the end of the turn.

No counterpart: alignment, cells and losses of rows with a context.
"""

from __future__ import annotations

import dataclasses
import types
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shards
from shards.format.chunk import Chunk
from shards.format.messages import messages_json
from student_train.config import Config
from student_train.cross_tokenizer.alignment import Turns, align
from student_train.cross_tokenizer.vocabulary import Vocabulary, load_vocabulary
from student_train.data.chat_template import StudentTemplate
from student_train.data.packing import Packing
from student_train.errors import TrainError
from student_train.objectives.base import LossScale
from student_train.objectives.cross_tokenizer import CrossTokenizer
from student_train.objectives.distiller import Distiller
from tests.student_train.responses import (
    ANSWERS,
    CHATML,
    INST,
    TEMPLATES,
    VOCAB,
    ResponseWorld,
    answer_ids,
    given_responses,
    make_world,
    permuted,
    shifted,
)

MESSAGES = messages_json([{"role": "user", "content": "Add 1."}])


@pytest.fixture(scope="module")
def world(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> ResponseWorld:
    return make_world(tools, tmp_path_factory.mktemp("across"), template=CHATML, write=given_responses)


def rows_of(world: ResponseWorld) -> list[Chunk]:
    return [chunk.row(r) for chunk in shards.open(str(world.shards)) for r in range(len(chunk.rows))]


def objective_of(world: ResponseWorld, folder: Path, *, max_tokens: int = 128, **more: Any) -> CrossTokenizer:
    student: Any = types.SimpleNamespace(
        vocab_size=VOCAB, max_row_tokens=max_tokens, source="own", tokenizer_dir=folder, other_tokenizer="other ids"
    )
    return CrossTokenizer.of(
        Config(**more), student, [shards.open(str(world.shards))], skip=0, device=torch.device("cpu")
    )


def test_the_teacher_in_other_ids_is_its_own_student(world: ResponseWorld, tmp_path: Path) -> None:
    model = permuted(world, tmp_path / "student", template=CHATML)
    objective, rows = objective_of(world, tmp_path / "student"), rows_of(world)
    distiller = Distiller(model, objective, dtype="float32")

    def kl(rows: list[Chunk]) -> torch.Tensor:
        (batch,) = objective.held_out_batches(rows, Packing(micro_tokens=10**6))
        return distiller(batch, None).cell_kl_B

    # Roots of blanks are those of blanks before a word, which a model with random weights does not heed.
    assert (kl(rows) < 1e-3).double().mean() > 0.99
    for by in (1, -1):
        assert kl([shifted(row, by) for row in rows]).mean() > 1.0


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_student_reads_its_own_template_and_learns_the_responses_alone(
    world: ResponseWorld, tmp_path: Path, name: str
) -> None:
    model = permuted(world, tmp_path / "student", template=TEMPLATES[name])
    objective, rows = objective_of(world, tmp_path / "student"), rows_of(world)
    template = StudentTemplate.load("student", tmp_path / "student")
    (batch,) = objective.batches(rows, Packing(micro_tokens=10**6, layout="padded"))
    labels = batch.targets.targets.label_P.tolist()
    start = 0
    for row, tokens, count in zip(rows, batch.tokens_BT.tolist(), batch.row_positions, strict=True):
        context = template.context_ids(row.rows[0].messages).tolist()
        assert tokens[: len(context)] == context
        mine = labels[start : start + count]
        assert tokens[len(context) : len(context) + count] == mine
        is_ended = answer_ids(row)[-1] == world.template.end_of_turn
        assert (mine[-1] == template.end_of_turn) == is_ended
        text = template.tokenizer.decode(mine[: count - is_ended])
        assert text == ANSWERS[row.rows[0].window]
        start += count
    assert start == len(labels)
    assert batch.targets.bytes_R.tolist() == [row.rows[0].byte_end for row in rows]
    output = Distiller(model, objective, dtype="float32", layout="padded")._output(batch)
    hidden_NH = output.hidden_NH.detach().requires_grad_()
    scale = LossScale(weights=objective.weights(objective.initial_state()), totals=batch.targets.counts)
    objective.loss(dataclasses.replace(output, hidden_NH=hidden_NH), batch, scale, measure=False).loss.backward()
    learned = torch.zeros(len(hidden_NH), dtype=torch.bool)
    learned[batch.index_P] = True
    assert (hidden_NH.grad[~learned] == 0).all()
    assert torch.isfinite(hidden_NH.grad).all()


def test_the_end_of_a_turn_has_a_cell_of_its_own(world: ResponseWorld, tmp_path: Path) -> None:
    permuted(world, tmp_path / "student", template=INST)
    objective, rows = objective_of(world, tmp_path / "student", across="cells"), rows_of(world)
    end = StudentTemplate.load("student", tmp_path / "student").end_of_turn
    (batch,) = objective.batches(rows, Packing(micro_tokens=10**6))
    targets, starts = batch.targets.targets, np.cumsum([0, *batch.row_positions])
    place = int(objective.order.rank_V[end])
    assert objective.tables.turns is not None
    theirs = [u for u, v in objective.tables.turns.student_of.items() if v == end]
    assert world.template.end_of_turn in theirs
    ended = 0
    for r, row in enumerate(rows):
        if answer_ids(row)[-1] != world.template.end_of_turn:
            continue
        ended += 1
        last = int(starts[r + 1]) - 1
        assert int(targets.label_P[last]) == end
        (b,) = (targets.at_B == last).nonzero()[0].tolist()
        in_cell = (targets.low_BK[b] <= place) & (place < targets.high_BK[b])
        head = slice(int(row.head_starts[-2]), int(row.head_starts[-1]))
        stored = row.head_probs[head][np.isin(row.head_ids[head], theirs)]
        assert float(targets.mass_BK[b][in_cell].sum()) == pytest.approx(float(stored.sum()), abs=1e-6)
    assert 0 < ended < len(rows)


def test_rows_that_leave_no_room_are_cut_or_left_out_and_counted(world: ResponseWorld, tmp_path: Path) -> None:
    permuted(world, tmp_path / "student", template=CHATML)
    rows, packing = rows_of(world), Packing(micro_tokens=10**6)
    lengths = sorted(row.rows[0].context for row in rows)
    limit = lengths[len(lengths) // 2] + 5
    objective = objective_of(world, tmp_path / "student", max_tokens=limit)
    readable, counts = objective.readable(rows)
    assert counts["rows left out: their context is longer than the student reads"] > 0
    assert counts["rows cut to what the student reads"] > 0
    (batch,) = objective.batches(rows, packing)
    assert batch.targets.left_out == counts
    assert len(batch.rows) == len(readable)
    assert max(row.tokens.shape[0] for row in batch.targets.rows) <= limit


def test_a_template_that_cannot_render_is_refused_before_training(world: ResponseWorld, tmp_path: Path) -> None:
    permuted(world, tmp_path / "student", template="{{ raise_exception('Only tools') }}")
    with pytest.raises(TrainError, match=r"its chat template cannot render a conversation of user \(Only tools\)"):
        objective_of(world, tmp_path / "student")


# ---------------------------------------------------------------------------------------------------------------
# Tokenizers of other families


def response_row(
    answer: str, teacher: Vocabulary, *, end: int | None, context: int = 5, ids: list[int] | None = None
) -> Chunk:
    """Return a response with empty records."""
    from shards.format.chunk import RowInfo

    ids = teacher.encode([answer])[0] if ids is None else ids
    tokens = np.array([*teacher.encode(["x" * 99])[0][:context], *ids, *([] if end is None else [end])], np.int32)
    context = len(tokens) - len(ids) - (end is not None)
    P = len(tokens) - context
    none, starts = np.zeros(P, np.float32), np.zeros(P + 1, np.int64)
    info = RowInfo(
        document="00" * 32, window=0, byte_start=0, byte_end=len(answer.encode()), source="tests", path="x",
        licence="", context=context, messages=MESSAGES,
    )  # fmt: skip
    return Chunk(
        rows=(info,), row_starts=np.array([0, len(tokens)]), tokens=tokens, label_logp=none, head_starts=starts,
        head_ids=tokens[:0], head_probs=none[:0], tail_mass=none, draw_starts=starts, draw_ids=tokens[:0],
        log_z=none[:, None], whitespace_logp=none, entropy=none,
    )  # fmt: skip


FAMILIES = [("sentencepiece", "byte-level"), ("plain", "byte-level"), ("byte-level", "sentencepiece")]
TEXTS = ["def f(x):\n    return x", "caf\u00e9 \u4e2d\u6587 \U0001f600", " ", "", "\n\n  x = 1\n", "return 1234 "]


def aligned(folders: dict[str, Path], names: tuple[str, str], texts: list[str], *, end: bool) -> tuple[Any, ...]:
    teacher, student = (load_vocabulary(folders[name]) for name in names)
    template = StudentTemplate.load("student", folders[names[1]])
    turns = Turns(template=template, student_of={teacher.ends[0]: template.end_of_turn})
    rows = [response_row(text, teacher, end=teacher.ends[0] if end else None) for text in texts]
    rows = [row for row in rows if len(row.tokens) > row.rows[0].context]
    return rows, teacher, student, align(rows, teacher.strings, student.with_end(template.end_of_turn), turns=turns)


@pytest.mark.parametrize("names", FAMILIES)
@pytest.mark.parametrize("end", [True, False])
def test_at_each_boundary_both_have_read_the_same_bytes(
    folders: dict[str, Path], names: tuple[str, str], end: bool
) -> None:
    rows, teacher, student, alignment = aligned(folders, names, TEXTS, end=end)
    assert alignment.kept == list(range(len(rows)))
    theirs = np.cumsum([0] + [len(row.tokens) - row.rows[0].context for row in rows])
    ours = np.cumsum([0] + [len(row.tokens) - row.first_label for row in alignment.rows])
    assert ours[-1] == len(alignment.label_P)
    for b, r in enumerate(alignment.row_B):
        read = teacher.join(answer_ids(rows[r])[: int(alignment.teacher_B[b] - theirs[r])])[teacher.has_dummy :]
        own = student.join(alignment.label_P[ours[r] : alignment.student_B[b]].tolist())[student.has_dummy :]
        assert read == own
        is_last = b + 1 == len(alignment.row_B) or alignment.row_B[b + 1] != r
        assert bool(alignment.end_B[b]) == (end and is_last)
        assert not alignment.end_B[b] or len(read) == rows[r].rows[0].byte_end
        assert bool(alignment.begin_B[b]) == (alignment.teacher_B[b] == theirs[r])
    dummies = teacher.has_dummy or student.has_dummy
    assert int(alignment.begin_B.sum()) == sum(not (dummies and row.rows[0].byte_end) for row in rows)
    assert int(alignment.end_B.sum()) == (len(rows) if end else 0)


def test_what_cannot_be_read_is_left_out_by_reason(folders: dict[str, Path]) -> None:
    teacher = load_vocabulary(folders["byte-level"])
    template = StudentTemplate.load("student", folders["sentencepiece"])
    turns = Turns(template=template, student_of={teacher.ends[0]: template.end_of_turn})
    student = load_vocabulary(folders["sentencepiece"]).with_end(template.end_of_turn)
    byte = {raw: i for i, raw in enumerate(teacher.strings)}
    end = teacher.ends[0]
    rows = [
        response_row("x = 1", teacher, end=end),
        response_row("??", teacher, end=end, ids=[byte[b"\xe4"], byte[b"x"]]),
        response_row("\u00e4", teacher, end=end, ids=[byte[b"x"], byte[b"\xc3"]]),
        response_row("xy", teacher, end=None, ids=[byte[b"x"], end, byte[b"y"]]),
        response_row("x\u00e4", teacher, end=None, ids=[byte[b"x"], byte[b"\xc3"]]),
    ]
    alignment = align(rows, teacher.strings, student, turns=turns)
    assert alignment.kept == [0, 4]
    assert alignment.counts == Counter(
        {
            "rows left out: the student's tokenizer does not give their text back": 2,
            "rows left out: special tokens in the text of a response": 1,
        }
    )
