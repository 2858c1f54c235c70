"""Training on responses with the shards' tokenizer: each test is a mistake that a trainer on responses has made.

No counterpart: the path from a cache of format version 2 to losses and gradients.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import types
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shards
from shards.format.chunk import Chunk
from shards.format.messages import parse_messages
from student_train.config import Config
from student_train.data.hashing import is_held_out
from student_train.data.packing import LAYOUTS, Packing
from student_train.errors import TrainError
from student_train.evaluation.held_out import HeldOutSet, score, summary
from student_train.objectives.base import LossScale
from student_train.objectives.distiller import Distiller
from student_train.objectives.same_tokenizer import SameTokenizer
from student_train.training.distributed import World
from student_train.training.train_step import UpdateSettings, take_step
from tests.student_train.forked import train_in_ranks
from tests.student_train.responses import (
    SPECIAL,
    TEMPLATES,
    VOCAB,
    ResponseWorld,
    answer_ids,
    make_world,
    question,
    shifted,
    turns,
)
from tests.student_train.toy import losses, run, toy_config

QUANTISATION = 1e-3
"""Nats: a teacher that is its own student has a smaller KL."""


@pytest.fixture(scope="module")
def worlds(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ResponseWorld]:
    """Return a teacher and its responses for each chat template."""
    return {
        name: make_world(tools, tmp_path_factory.mktemp(name), template=template)
        for name, template in TEMPLATES.items()
    }


@pytest.fixture(scope="module")
def chat(worlds: dict[str, ResponseWorld]) -> ResponseWorld:
    return worlds["chatml"]


def rows_of(world: ResponseWorld) -> list[Chunk]:
    """Return the rows of the cache, as they come out of it."""
    return [chunk.row(r) for chunk in shards.open(str(world.shards)) for r in range(len(chunk.rows))]


def objective_of(world: ResponseWorld, *, vocab: int = VOCAB, folder: Path | None = None, **more: Any) -> SameTokenizer:
    student: Any = types.SimpleNamespace(
        vocab_size=vocab, max_row_tokens=128, source="own", tokenizer_dir=folder or world.teacher_dir
    )
    return SameTokenizer.of(Config(**more), student, [shards.open(str(world.shards))], skip=0)


def kl(objective: SameTokenizer, model: Any, rows: list[Chunk], *, layout: str = "mask") -> float:
    distiller = Distiller(model, objective, dtype="float32", layout=layout)
    held_out = HeldOutSet(rows, objective, Packing(micro_tokens=300, layout=layout))
    figures = summary(score(held_out, lambda batch: distiller(batch, None)), objective.measures)
    assert figures is not None
    return figures["kl"]["mean"]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("template", ["stored", "own"])
@pytest.mark.slow
def test_the_teacher_as_its_own_student_is_at_the_error_of_quantisation(
    worlds: dict[str, ResponseWorld], name: str, template: str
) -> None:
    world = worlds[name]
    objective, rows = objective_of(world, template=template), rows_of(world)
    assert abs(kl(objective, world.model, rows)) < QUANTISATION
    for by in (1, -1):
        assert kl(objective, world.model, [shifted(row, by) for row in rows]) > 1000 * QUANTISATION


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "masks"])
def test_packing_changes_nothing(chat: ResponseWorld, layout: str) -> None:
    objective, rows = objective_of(chat), rows_of(chat)
    assert abs(kl(objective, chat.model, rows, layout=layout)) < QUANTISATION
    assert kl(objective, chat.model, [shifted(row, 1) for row in rows], layout=layout) > 1000 * QUANTISATION


def test_two_ranks_measure_what_one_does(chat: ResponseWorld) -> None:
    objective, rows = objective_of(chat), rows_of(chat)
    held_out = HeldOutSet(rows, objective, Packing(micro_tokens=300))
    shares = [held_out.batches(World(rank=rank, size=2)) for rank in (0, 1)]
    one = held_out.batches(World())
    assert sum(batch.num_positions for share in shares for batch in share) == sum(b.num_positions for b in one)
    distiller = Distiller(chat.model, objective, dtype="float32")
    sums = [sum(float(distiller(b, None).kl_P.sum()) for b in batches) for batches in ([*shares[0], *shares[1]], one)]
    assert sums[0] == pytest.approx(sums[1], abs=1e-3)


@pytest.mark.parametrize("layout", ["mask", "padded"])
@pytest.mark.parametrize("objective_name", ["kd", "sft"])
def test_context_and_padding_have_no_gradient_and_the_first_gradient_is_finite(
    chat: ResponseWorld, layout: str, objective_name: str
) -> None:
    objective = objective_of(chat, objective=objective_name)
    (batch,) = objective.batches(rows_of(chat)[:6], Packing(micro_tokens=10**6, layout=layout))
    for tensor in dataclasses.asdict(batch.targets).values():
        assert torch.isfinite(tensor.float()).all()
    distiller = Distiller(chat.model, objective, dtype="float32", layout=layout)
    output = distiller._output(batch)
    hidden_NH = output.hidden_NH.detach().requires_grad_()
    output = dataclasses.replace(output, hidden_NH=hidden_NH)
    scale = LossScale(weights=objective.weights(None), totals=batch.targets.counts)
    objective.loss(output, batch, scale, measure=False).loss.backward()
    learned = torch.zeros(len(hidden_NH), dtype=torch.bool)
    learned[batch.index_P] = True
    assert (hidden_NH.grad[~learned] == 0).all()
    assert torch.isfinite(hidden_NH.grad).all()
    assert (hidden_NH.grad[learned].abs().sum(1) > 0).sum() > len(batch.index_P) // 2


def test_a_context_label_does_not_count(chat: ResponseWorld) -> None:
    """The labels of a batch are the ids of the responses, as they were written, and nothing else."""
    objective, rows = objective_of(chat), rows_of(chat)
    (batch,) = objective.batches(rows, Packing(micro_tokens=10**6))
    assert batch.targets.ids_PK[:, 0].tolist() == [token for row in rows for token in answer_ids(row)]
    assert batch.row_positions == tuple(len(answer_ids(row)) for row in rows)
    before = batch.tokens_BT.flatten()[batch.index_P]
    expected = [int(token) for row in rows for token in row.tokens[row.rows[0].context - 1 : -1]]
    assert before.tolist() == expected


def test_responses_are_not_tokenised_again(chat: ResponseWorld) -> None:
    """The teacher's ids are its own choice among those that spell a text; encoding the text gives others."""
    rows, tokenizer = rows_of(chat), chat.template.tokenizer
    end = chat.template.end_of_turn
    again = [
        tokenizer(tokenizer.decode([i for i in answer_ids(row) if i != end]), add_special_tokens=False)["input_ids"]
        for row in rows
    ]
    assert any(ids != [i for i in answer_ids(row) if i != end] for ids, row in zip(again, rows, strict=True))
    for template in ("stored", "own"):
        (batch,) = objective_of(chat, template=template).batches(rows, Packing(micro_tokens=10**6))
        assert batch.targets.ids_PK[:, 0].tolist() == [token for row in rows for token in answer_ids(row)]


def test_samples_of_one_prompt_are_held_out_together(chat: ResponseWorld, tmp_path: Path) -> None:
    run(toy_config(chat, tmp_path / "out", student=str(chat.teacher_dir), student_layers=0, held_out=0.4, max_steps=2))
    lines = [json.loads(line) for line in (tmp_path / "out" / "held_out.jsonl").read_text().splitlines()]
    held = {row.rows[0].document for row in chat.rows if is_held_out(row.rows[0].document, fraction=0.4)}
    assert {line["document"] for line in lines} == held
    assert 0 < len(held) < len({row.rows[0].document for row in chat.rows})
    assert len(lines) == 3 * len(held)


def test_turns_of_one_conversation_are_held_out_together(tools: Any, tmp_path: Path) -> None:
    """Each turn is a document of its own, so a rule by document alone would put turns on both sides."""
    chats = make_world(tools, tmp_path / "w", write=turns, corpus={"train_on": "all"})
    student = {"student": str(chats.teacher_dir), "student_layers": 0}
    run(toy_config(chats, tmp_path / "out", **student, held_out=0.4, max_steps=0, epochs=1))
    lines = [json.loads(line) for line in (tmp_path / "out" / "held_out.jsonl").read_text().splitlines()]
    first_words = {
        info.document: parse_messages(info.messages)[0]["content"] for info in (row.rows[0] for row in chats.rows)
    }
    held = Counter(first_words[line["document"]] for line in lines)
    assert 0 < len(held) < len(set(first_words.values()))
    assert set(held.values()) == {2}
    record = json.loads((tmp_path / "out" / "run.json").read_bytes())
    assert record["train"]["rows"] == len(chats.rows) - len(lines)  # one pass over all other turns
    alone = {first_words[d] for d in first_words if is_held_out(d, fraction=0.4)} - held.keys()
    assert alone  # by document, a turn of another conversation would be held out


def test_the_loss_is_normalised_by_the_labels_of_the_whole_step(chat: ResponseWorld) -> None:
    """Batches with few labels weigh less than those with many, however a step is cut into batches."""
    objective, rows = objective_of(chat), rows_of(chat)
    losses, grads = [], []
    for micro_tokens in (10**6, 60):
        distiller = Distiller(deepcopy(chat.model), objective, dtype="float32")
        optimizer = torch.optim.SGD(distiller.parameters(), lr=0.0)
        batches = objective.batches(rows, Packing(micro_tokens=micro_tokens))
        update = UpdateSettings(lr=0.0, clip=0.0, weights=objective.weights(None))
        result = take_step(distiller, optimizer, batches, number=1, update=update, world=World())
        assert result.positions == sum(len(answer_ids(row)) for row in rows)
        losses.append(result.loss)
        grads.append(distiller.model.model.embed_tokens.weight.grad)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-3, atol=1e-5)


def test_rows_without_a_label_contribute_nothing(chat: ResponseWorld) -> None:
    objective, rows = objective_of(chat), rows_of(chat)
    empty = [without_positions(row) for row in rows[:3]]
    packing = Packing(micro_tokens=10**6)
    assert objective.batches(empty, packing) == ()
    (with_empty,), (without,) = objective.batches([*empty, *rows[3:6]], packing), objective.batches(rows[3:6], packing)
    assert torch.equal(with_empty.tokens_BT, without.tokens_BT)
    assert with_empty.num_positions == without.num_positions
    assert objective.readable([*empty, *rows[3:6]])[0] == rows[3:6]


def without_positions(row: Chunk) -> Chunk:
    """Return the context of a row alone."""
    context = row.rows[0].context
    none, starts = row.label_logp[:0], np.zeros(1, dtype=np.int64)
    return dataclasses.replace(
        row, tokens=row.tokens[:context], row_starts=np.array([0, context]), label_logp=none, head_starts=starts,
        head_ids=row.head_ids[:0], head_probs=none, tail_mass=none, draw_starts=starts, draw_ids=row.draw_ids[:0],
        log_z=row.log_z[:0], whitespace_logp=none, entropy=none,
    )  # fmt: skip


@pytest.mark.parametrize("padding", [64, -1])
def test_rows_of_padding_in_the_projection_change_nothing(chat: ResponseWorld, padding: int) -> None:
    """A projection is often wider than the tokenizer (152,064 for 151,936 ids), or the teacher's is."""
    rows, model = rows_of(chat), deepcopy(chat.model)
    if padding > 0:
        model.resize_token_embeddings(VOCAB + padding, mean_resizing=False)
        with torch.no_grad():  # a trained model gives its padding no probability; one direction does so here
            model.model.embed_tokens.weight[VOCAB:] = 0.0
        base = kl(objective_of(chat), chat.model, rows)
        assert kl(objective_of(chat, vocab=VOCAB + padding), model, rows) == pytest.approx(base, abs=QUANTISATION)
        return
    label = max(max(answer_ids(row)) for row in rows)
    with pytest.raises(TrainError, match=rf"holds token {label}; the student has {label} ids"):
        objective_of(chat, vocab=label).batches(rows, Packing(micro_tokens=10**6))


def test_a_student_that_ends_turns_otherwise_learns_its_own_end(chat: ResponseWorld, tmp_path: Path) -> None:
    folder = shutil.copytree(chat.teacher_dir, tmp_path / "other")
    (folder / "chat_template.jinja").write_text(TEMPLATES["inst"] or "")
    objective, rows = objective_of(chat, template="own", folder=folder), rows_of(chat)
    (batch,) = objective.batches(rows, Packing(micro_tokens=10**6))
    theirs, own = chat.template.end_of_turn, VOCAB - len(SPECIAL) + SPECIAL.index("</s>")
    labels = batch.targets.ids_PK[:, 0].tolist()
    expected = [token for row in rows for token in answer_ids(row)]
    assert labels == [own if token == theirs else token for token in expected]
    text = chat.template.tokenizer.decode(batch.tokens_BT.flatten().tolist())
    assert "[INST] Is 7 odd? [/INST]" in text
    assert "<|im_start|>" not in text


def test_rows_that_its_own_template_makes_too_long_are_left_out_and_counted(
    chat: ResponseWorld, tmp_path: Path
) -> None:
    """The rows are read as they are stored, but not behind a template of more tokens."""
    from transformers import AutoModelForCausalLM

    folder = shutil.copytree(chat.teacher_dir, tmp_path / "other")
    (folder / "chat_template.jinja").write_text("{{ 'You are a helpful assistant. ' }}" + (TEMPLATES["inst"] or ""))
    rows, packing = rows_of(chat), Packing(micro_tokens=10**6)
    longest = max(len(row.tokens) for row in rows)
    objective = dataclasses.replace(objective_of(chat, template="own", folder=folder), max_row_tokens=longest)
    (batch,) = objective.batches(rows, packing)
    too_long = len(rows) - len(batch.rows)
    assert 0 < too_long < len(rows)
    assert list(batch.left_out.values()) == [too_long]
    kept, left_out = objective.readable(rows)
    assert [row.rows[0].document for row in kept] == [info.document for info in batch.rows]
    assert left_out == batch.left_out
    (empty,) = dataclasses.replace(objective, max_row_tokens=1).batches(rows, packing)
    assert (empty.num_positions, list(empty.left_out.values())) == (0, [len(rows)])

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.max_position_embeddings = longest
    model.save_pretrained(folder)
    settings = {"student": str(folder), "student_layers": 0, "held_out": 0.4, "max_steps": 0, "epochs": 1}
    run(toy_config(chat, tmp_path / "out", template="own", **settings))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    (counted,) = record["train"]["left_out"].values()
    trained = record["train"]["rows"] - record["train"]["rows_without_loss"]
    assert 0 < counted == record["train"]["rows_without_loss"]
    assert trained + record["held_out"]["rows"] == len(kept)


def test_templates_that_cannot_be_used_are_refused_by_name(world: Any, chat: ResponseWorld, tmp_path: Path) -> None:
    folder = shutil.copytree(chat.teacher_dir, tmp_path / "other")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('No user is allowed') }}")
    with pytest.raises(TrainError, match=r"student own: its chat template cannot render a conversation of user \(No"):
        objective_of(chat, template="own", folder=folder)
    student: Any = types.SimpleNamespace(
        vocab_size=300, max_row_tokens=128, source="own", tokenizer_dir=world.teacher_dir
    )
    with pytest.raises(TrainError, match="template is own; found plain documents"):
        SameTokenizer.of(Config(template="own"), student, [shards.open(str(world.shards))], skip=0)


def test_a_context_without_messages_is_refused_for_another_template(chat: ResponseWorld) -> None:
    row = rows_of(chat)[0]
    bare = dataclasses.replace(row, rows=(dataclasses.replace(row.rows[0], messages=""),))
    assert objective_of(chat).batches([bare], Packing(micro_tokens=999))
    with pytest.raises(TrainError, match="and no messages, expected those that a chat template can render"):
        objective_of(chat, template="own").batches([bare], Packing(micro_tokens=999))


@pytest.mark.parametrize("more", [{"divergence": "rs-kd"}, {"divergence": "bucket-js"}, {"temperature": 2.0,
    "divergence": "bucket-forward-kl"}, {"specialist": (5, 60)}, {"objective": "sft"}])  # fmt: skip
def test_every_loss_is_of_the_response_alone(chat: ResponseWorld, more: dict[str, Any]) -> None:
    """Rows whose context is cut to one token have the same targets."""
    objective, rows = objective_of(chat, **more), rows_of(chat)
    packing = Packing(micro_tokens=10**6)
    bare = [
        dataclasses.replace(
            row,
            rows=(dataclasses.replace(row.rows[0], context=1),),
            tokens=row.tokens[row.rows[0].context - 1 :],
            row_starts=np.array([0, len(row.tokens) - row.rows[0].context + 1]),
        )
        for row in rows
    ]
    (found,), (expected,) = objective.batches(rows, packing), objective.batches(bare, packing)
    for field in dataclasses.fields(expected.targets):
        assert torch.equal(getattr(found.targets, field.name), getattr(expected.targets, field.name))
    scale = LossScale(weights=objective.weights(None), totals=found.targets.counts)
    out = Distiller(chat.model, objective, dtype="float32")(found, scale)
    assert math.isfinite(float(out.loss.detach()))


def test_a_run_counts_its_tokens_and_its_student_answers_as_it_was_trained(
    chat: ResponseWorld, tmp_path: Path, tools: Any
) -> None:
    """A base model that learned behind the teacher's template is asked with it, and stops at its end of turn."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = shutil.copytree(chat.teacher_dir, tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    out = tmp_path / "out"
    said = run(toy_config(chat, out, student=str(base), student_layers=0, held_out=0.4, max_steps=4))
    record = json.loads((out / "run.json").read_text())
    train, held_out = record["train"], record["held_out"]
    assert abs(held_out["before"]["kl"]["mean"]) < QUANTISATION
    assert train["tokens"] == train["response_tokens"] > 0
    assert train["context_tokens"] > train["rows"] > train["rows_without_loss"] == 0
    assert record["shards"]["responses"] == {"writer": None}
    assert f"{train['context_tokens']:,} tokens of context, {train['response_tokens']:,} of responses" in said[-1]
    tokenizer = AutoTokenizer.from_pretrained(out)
    row = chat.rows[0]
    messages = parse_messages(row.rows[0].messages)
    opening = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert tokenizer(opening, add_special_tokens=False)["input_ids"] == row.tokens[: row.rows[0].context].tolist()
    assert AutoModelForCausalLM.from_pretrained(out).generation_config.eos_token_id[0] == chat.template.end_of_turn
    completions = json.loads((out / "completions.json").read_text())
    held = [row for row in rows_of(chat) if is_held_out(row.rows[0].document, fraction=0.4)]
    assert completions["prompts"] == list(dict.fromkeys(map(question, held)))[:3]
    assert len(completions["completions"]["student"]) == len(completions["prompts"])


@pytest.mark.slow
def test_two_processes_train_what_one_does(chat: ResponseWorld, tmp_path: Path) -> None:
    settings = {"student": str(chat.teacher_dir), "student_layers": 0, "held_out": 0.4, "max_steps": 3, "device": "cpu"}
    run(toy_config(chat, tmp_path / "1", **settings))
    train_in_ranks(chat, toy_config(chat, tmp_path / "2", **settings))
    assert [loss for _, loss in losses(tmp_path / "2")] == pytest.approx(
        [loss for _, loss in losses(tmp_path / "1")], rel=1e-4, abs=1e-4
    )
    one, two = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("1", "2"))
    for key in ("tokens", "rows", "rows_without_loss", "context_tokens", "response_tokens"):
        assert two["train"][key] == one["train"][key]
    for record in (one, two):
        assert abs(record["held_out"]["before"]["kl"]["mean"]) < QUANTISATION
