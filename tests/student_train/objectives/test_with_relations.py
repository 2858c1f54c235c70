"""Tests of relations beside another objective: what they add, for which rows, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shards
from shards.format.chunk import Chunk
from shards.format.relations import RelationLayout
from student_train.config import Config
from student_train.data.hashing import HeldOutRule
from student_train.data.loader import BatchSpec, CacheSpec, Rows, read_step
from student_train.data.mixture import plan_of
from student_train.data.packing import Packing
from student_train.errors import TrainError
from student_train.losses.fused_linear import LossSpec
from student_train.losses.targets import TargetSpec
from student_train.objectives.attention_vectors import require_vectors
from student_train.objectives.base import LossScale
from student_train.objectives.choose import choose_objective, choose_objectives
from student_train.objectives.distiller import Distiller
from student_train.objectives.same_tokenizer import SameTokenizer
from student_train.objectives.with_relations import WithRelations
from tests.student_train.forked import train_in_ranks
from tests.student_train.toy import digest, losses, run, toy_config

LAYOUT = RelationLayout(layer=3, heads=4, widths=(8, 4, 4), dims=8, seed=0)
"""Relations of `conftest.llama`: queries of 32 numbers, keys and values of 16."""
BASE = SameTokenizer(
    loss_spec=LossSpec(divergence="forward-kl", ce_weight=0.25),
    targets=TargetSpec(vocab_size=60, target_kind="linear"),
    max_row_tokens=64,
)
OBJECTIVE = WithRelations(base=BASE, layout=LAYOUT, weight=0.5, relations_layer=1, rows_line="")
PACKING = Packing(micro_tokens=1000)


@pytest.fixture
def rows(tools: Any) -> list[Chunk]:
    """Return rows of which the first and the last have vectors of another model."""
    teacher = tools.llama(vocab=60, seed=5)
    found = [tools.random_row(n, seed=n) for n in (20, 9, 13)]
    vectors = [tools.layer_vectors(teacher, row.tokens, 3) for row in found]
    return [
        tools.with_relations(row, LAYOUT, kinds if i != 1 else None)
        for i, (row, kinds) in enumerate(zip(found, vectors, strict=True))
    ]


def loss_of(model: Any, objective: Any, rows: list[Chunk], packing: Packing = PACKING) -> Any:
    """Return loss, terms by row and gradients, over all batches of the rows as one step."""
    batches = objective.batches(rows, packing)
    totals = {part: sum(batch.targets.counts[part] for batch in batches) for part in objective.parts}
    distiller = Distiller(model, objective, dtype="float32", layout=packing.layout)
    model.zero_grad()
    total, terms = 0.0, []
    for batch in batches:
        out = distiller(batch, LossScale(weights=objective.weights(None), totals=totals))
        out.loss.backward()
        total += float(out.loss.detach())
        terms.append(out.terms)
    return total, terms, {name: p.grad.clone() for name, p in model.named_parameters()}


def test_the_loss_is_that_of_the_other_objective_plus_the_mean_relation_term(tools: Any, rows: list[Chunk]) -> None:
    model = tools.llama(vocab=60, layers=2)
    total, (terms,), _ = loss_of(model, OBJECTIVE, rows)
    base, _, _ = loss_of(model, BASE, rows)
    assert len(terms["relations"]) == 19 + 12
    assert total == pytest.approx(base + 0.5 * float(terms["relations"].mean()), rel=1e-6)
    assert OBJECTIVE.weights(None) == {"kd": 0.75, "ce": 0.25, "relations": 0.5}
    means = {part: float(term.mean()) for part, term in terms.items()}
    scale = LossScale(weights=OBJECTIVE.weights(None), totals={"kd": 39, "ce": 39, "relations": 31})
    assert OBJECTIVE.metrics(means, scale)["relations_loss"] == means["relations"]
    assert OBJECTIVE.total(means, scale) == pytest.approx(total, rel=1e-6)


def test_packing_and_accumulation_change_neither_terms_nor_gradients(tools: Any, rows: list[Chunk]) -> None:
    model = tools.llama(vocab=60, layers=2)
    total, (packed,), grads = loss_of(model, OBJECTIVE, rows)
    for packing in (Packing(micro_tokens=21), Packing(micro_tokens=1000, layout="padded")):
        again, terms, again_grads = loss_of(model, OBJECTIVE, rows, packing)
        assert again == pytest.approx(total, rel=1e-5)
        joined = torch.cat([term["relations"] for term in terms])
        torch.testing.assert_close(joined, packed["relations"], rtol=1e-4, atol=1e-6)
        for name, grad in grads.items():
            torch.testing.assert_close(again_grads[name], grad, rtol=1e-3, atol=1e-5)


def test_rows_without_relations_add_exactly_nothing(tools: Any, rows: list[Chunk]) -> None:
    model = tools.llama(vocab=60, layers=2)
    bare = [tools.with_relations(row, LAYOUT, None) for row in rows]
    total, (terms,), grads = loss_of(model, OBJECTIVE, bare)
    base, _, base_grads = loss_of(model, BASE, bare)
    assert total == base
    assert len(terms["relations"]) == 0
    assert all(torch.equal(grads[name], base_grads[name]) for name in grads)
    empty = OBJECTIVE.empty_batch()
    assert empty.targets.counts == {"kd": 0, "ce": 0, "relations": 0}
    out = Distiller(model, OBJECTIVE, dtype="float32")(
        empty, LossScale(weights=OBJECTIVE.weights(None), totals={"kd": 5, "ce": 5, "relations": 5})
    )
    assert float(out.loss.detach()) == 0
    assert OBJECTIVE.row_scores(empty, Distiller(model, OBJECTIVE, dtype="float32")(empty, None)) == []


@pytest.mark.parametrize("context", [1, 7])
def test_the_teacher_as_its_own_student_is_at_the_floor_and_a_shift_is_not(tools: Any, context: int) -> None:
    model = tools.llama(vocab=60)
    objective = dataclasses.replace(OBJECTIVE, relations_layer=3)
    plain = [tools.random_row(n, seed=n) for n in (30, 18)]
    found = []
    for shift in (0, 1):
        shifted = []
        for row in plain:
            info = dataclasses.replace(row.rows[0], context=context)
            count = len(row.tokens) - context
            cut = dataclasses.replace(tools.random_row(count + 1, seed=1), tokens=row.tokens, rows=(info,))
            cut = dataclasses.replace(cut, row_starts=np.array([0, len(row.tokens)]))
            vectors = [np.roll(kind, shift, 0) for kind in tools.layer_vectors(model, row.tokens, 3)]
            shifted.append(tools.with_relations(cut, LAYOUT, vectors))
        _, (terms,), _ = loss_of(model, objective, shifted)
        assert len(terms["relations"]) == 48 - 2 * context
        found.append(float(terms["relations"].mean()))
    assert found[0] < 1e-4  # int8 alone: nothing is projected
    assert found[1] > 100 * found[0]


def test_prefix_tokens_have_no_relations(tools: Any) -> None:
    model = tools.llama(vocab=60)
    skipping = dataclasses.replace(
        OBJECTIVE,
        base=dataclasses.replace(BASE, targets=dataclasses.replace(BASE.targets, skip=2)),
        relations_layer=3,
    )
    row = tools.random_row(15, seed=0)
    row = tools.with_relations(row, LAYOUT, tools.layer_vectors(model, row.tokens, 3))
    _, (terms,), _ = loss_of(model, skipping, [row])
    assert len(terms["relations"]) == 12
    assert terms["relations"].mean() < 1e-4


def test_terms_are_traced_back_to_their_rows(rows: list[Chunk]) -> None:
    (batch,) = OBJECTIVE.batches(rows, PACKING)
    assert OBJECTIVE.rows_with(batch, {"kd": [], "ce": [], "relations": [18]}) == [batch.rows[0]]
    assert OBJECTIVE.rows_with(batch, {"kd": [], "ce": [20], "relations": [19]}) == [batch.rows[1], batch.rows[2]]


def test_recomputed_activations_and_bfloat16_train_the_same_loss(tools: Any, rows: list[Chunk]) -> None:
    model = tools.llama(vocab=60, layers=2)
    _, (terms,), grads = loss_of(model, OBJECTIVE, rows)
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    _, (again,), again_grads = loss_of(model, OBJECTIVE, rows)
    assert torch.equal(again["relations"], terms["relations"])
    for name, grad in grads.items():
        torch.testing.assert_close(again_grads[name], grad)
    own = model.model.layers[1].self_attn
    assert not any(module._forward_hooks for module in (own.q_proj, own.k_proj, own.v_proj))
    (batch,) = OBJECTIVE.batches(rows, PACKING)
    scale = LossScale(weights=OBJECTIVE.weights(None), totals=batch.targets.counts)
    out = Distiller(model, OBJECTIVE, dtype="bfloat16")(batch, scale)
    assert float(out.terms["relations"].mean()) == pytest.approx(float(terms["relations"].mean()), rel=0.05)


def student_of(model: Any, **more: Any) -> Any:
    facts = {"model": model, "vocab_size": 300, "max_row_tokens": 128, "other_tokenizer": None, "source": "x"}
    return types.SimpleNamespace(**{**facts, **more})


def test_what_cannot_be_compared_is_refused_with_a_reason(world: Any, relation_world: Any, tools: Any) -> None:
    model, device = tools.llama(vocab=300), torch.device("cpu")
    plain, cache = (shards.open(str(w.shards)) for w in (world, relation_world))
    config = Config(relations_weight=0.5)
    with pytest.raises(TrainError, match=r"found no relations in .*, expected a cache of teacher-dump --relations"):
        choose_objective(config, student_of(model), [plain], device=device)
    with pytest.raises(TrainError, match="another tokenizer than the shards"):
        choose_objective(config, student_of(model, other_tokenizer="of its ids"), [cache], device=device)
    objective = choose_objective(config, student_of(model), [cache], device=device)
    assert isinstance(objective, WithRelations)
    assert "layer 3 of the teacher and layer 3 of the student, 4 relation heads" in objective.notice
    assert isinstance(choose_objective(Config(), student_of(model), [cache], device=device), SameTokenizer)
    for settings in ({"objective": "sft"}, {"compile": True}, {"relations_weight": -1.0}):
        with pytest.raises(TrainError, match="relations-weight"):
            Config(**{"relations_weight": 0.5, **settings})


def test_of_several_caches_those_without_relations_add_none(world: Any, relation_world: Any, tools: Any) -> None:
    model = tools.llama(vocab=300)
    caches = [shards.open(str(w.shards)) for w in (world, relation_world)]
    student = student_of(model, beside=lambda folder: student_of(model))
    chosen = choose_objectives(Config(relations_weight=0.5), student, caches, device=torch.device("cpu"))
    assert [type(objective) for objective in chosen.by_cache] == [SameTokenizer, WithRelations]
    assert chosen.whole.relations_layer == 3
    with pytest.raises(TrainError, match="found no relations"):
        choose_objectives(Config(relations_weight=0.5), student, caches[:1], device=torch.device("cpu"))
    batches = []
    for kind, (objective, w) in enumerate(zip(chosen.by_cache, (world, relation_world), strict=True)):
        batches += [dataclasses.replace(b, kind=kind) for b in objective.batches(w.rows[:4], PACKING)]
    totals = {part: sum(chosen.whole.counts(batch)[part] for batch in batches) for part in chosen.whole.parts}
    scale = LossScale(weights=chosen.whole.weights(chosen.whole.initial_state()), totals=totals)
    distiller = Distiller(model, chosen.whole, dtype="float32")
    outs = [distiller(batch, scale) for batch in batches]
    means = dict.fromkeys(chosen.whole.parts, 0.0)
    for out in outs:
        for part, term in out.terms.items():
            means[part] += float(term.sum()) / max(1, totals[part])
    assert means["relations/2"] > 0
    loss = sum(float(out.loss.detach()) for out in outs)
    assert loss == pytest.approx(chosen.whole.total(means, scale), rel=1e-5)


def test_a_student_whose_layers_do_not_fit_is_refused(tools: Any) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = tools.llama(vocab=60)
    assert [require_vectors(model, layer, heads=4) for layer in (0, -1)] == [0, 3]
    with pytest.raises(TrainError, match="relations-layer is 4; the student has 4 layers, expected -4 to 3"):
        require_vectors(model, 4, heads=4)
    with pytest.raises(TrainError, match="queries have 32 numbers, expected a multiple of the 5 relation heads"):
        require_vectors(model, 0, heads=5)
    fused = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=2, n_positions=32))
    with pytest.raises(TrainError, match="found no q_proj, k_proj and v_proj in layer 1 of a GPT2LMHeadModel"):
        require_vectors(fused, -1, heads=2)


@pytest.fixture(scope="module")
def relation_world(world: Any, tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The world, with vectors of its teacher in the rows of every second document."""
    model = tools.llama(vocab=world.vocab)
    rows = []
    for row in world.rows:
        chosen = int(row.rows[0].path.removesuffix(".py")) % 2 == 0
        rows.append(tools.with_relations(row, LAYOUT, tools.layer_vectors(model, row.tokens, 3) if chosen else None))
    folder = tmp_path_factory.mktemp("relations") / "shards"
    tools.write_cache(folder, rows, world.teacher_dir, vocab=world.vocab, relations=LAYOUT)
    return dataclasses.replace(world, shards=folder, rows=rows)


def test_rows_with_relations_are_counted(relation_world: Any) -> None:
    cache = shards.open(str(relation_world.shards))
    plan = plan_of(Config(batch_tokens=cache.tokens), [cache], digests=[cache.manifest_sha256])
    objective = dataclasses.replace(
        OBJECTIVE, base=dataclasses.replace(BASE, targets=dataclasses.replace(BASE.targets, vocab_size=300))
    )
    rules = CacheSpec(batcher=objective, held_out=HeldOutRule(fraction=0.0))
    step = read_step(Rows([cache]), plan, BatchSpec(caches=(rules,), packing=PACKING), step=0)
    assert step.rows["rows"] == 48
    assert step.rows["rows_with_relations"] == 24
    positions = sum(batch.targets.counts["relations"] for batch in step.batches)
    assert positions == sum(len(row.entropy) for row in relation_world.rows if len(row.relations.codes))


@pytest.mark.slow
def test_training_with_relations_brings_them_closer_and_the_control_has_none(
    relation_world: Any, at_home: Any, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    said = run(toy_config(relation_world, out, relations_weight=1.0, max_steps=30, save_every=0, control=True))
    assert any("layer 3 of the teacher and layer 1 of the student" in line for line in said)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    values = [line["relations_loss"] for line in lines if line["relations_loss"] > 0]
    assert np.mean(values[-8:]) < 0.7 * np.mean(values[:8])
    record = json.loads((out / "run.json").read_text())
    assert 0 < record["train"]["rows_with_relations"] < record["train"]["rows"]
    control = json.loads((out / "control" / "run.json").read_text())
    assert control["config"]["relations_weight"] == 0
    assert "relations_loss" not in (out / "control" / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_two_processes_train_what_one_trains_and_a_stopped_run_ends_in_the_same_bits(
    relation_world: Any, at_home: Any, tmp_path: Path
) -> None:
    settings = {"relations_weight": 1.0, "max_steps": 8, "micro_tokens": 60, "save_every": 3, "device": "cpu"}
    one, two = (toy_config(relation_world, tmp_path / name, **settings) for name in ("one", "two"))
    run(one)
    train_in_ranks(relation_world, two)
    assert [loss for _, loss in losses(Path(two.out))] == pytest.approx(
        [loss for _, loss in losses(Path(one.out))], rel=1e-5
    )
    records = [json.loads((Path(c.out) / "run.json").read_text())["train"] for c in (one, two)]
    assert records[0]["rows_with_relations"] == records[1]["rows_with_relations"]
    again = dataclasses.replace(one, out=str(tmp_path / "again"))
    run(again)
    assert digest(Path(again.out)) == digest(Path(one.out))
