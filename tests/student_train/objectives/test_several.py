"""Tests of a run's loss over caches with different objectives: every position with a label counts the same."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import shards
from student_train.config import Config
from student_train.data.hashing import HeldOutRule
from student_train.data.loader import BatchSpec, CacheSpec, Rows, read_step
from student_train.data.mixture import plan_of
from student_train.data.packing import Batch, Packing
from student_train.errors import TrainError
from student_train.objectives.base import CacheObjective, LossScale, Objective
from student_train.objectives.choose import ChosenObjectives, choose_objectives
from student_train.objectives.cross_tokenizer import CrossTokenizer
from student_train.objectives.distiller import Distiller
from student_train.objectives.same_tokenizer import SameTokenizer
from student_train.objectives.several import SeveralObjectives
from student_train.training.distributed import World
from student_train.training.train_step import UpdateSettings, take_step
from tests.student_train.two_teachers import TwoTeachers, write_two

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def two(world: Any, tools: Any, tmp_path_factory: pytest.TempPathFactory) -> TwoTeachers:
    return write_two(tmp_path_factory.mktemp("two"), world, tools)


def student_of(world: Any) -> Any:
    """Return a student with the tokenizer of the cache `same`."""

    def beside(folder: Path) -> Any:
        return types.SimpleNamespace(**{**known, "other_tokenizer": "other ids"})

    known = {"vocab_size": world.vocab, "max_row_tokens": 128, "source": "own", "tokenizer_dir": world.teacher_dir}
    return types.SimpleNamespace(**known, other_tokenizer=None, beside=beside)


def chosen_of(two: TwoTeachers, world: Any, **more: Any) -> ChosenObjectives:
    caches = [shards.open(two.same), shards.open(two.other)]
    return choose_objectives(Config(**more), student_of(world), caches, device=CPU)


def batches_of(two: TwoTeachers, chosen: ChosenObjectives, *, micro_tokens: int = 120) -> tuple[Batch, ...]:
    """Return the batches of one step of both caches."""
    caches = [shards.open(two.same), shards.open(two.other)]
    plan = plan_of(Config(batch_tokens=700), caches, digests=[cache.manifest_sha256 for cache in caches])
    specs = tuple(
        CacheSpec(batcher=objective, held_out=HeldOutRule(fraction=0.0), kind=kind)
        for objective, kind in zip(chosen.by_cache, chosen.kinds, strict=True)
    )
    spec = BatchSpec(caches=specs, packing=Packing(micro_tokens=micro_tokens))
    return read_step(Rows(caches), plan, spec, step=0).batches


def gradient(model: Any, objective: Objective, batches: list[Batch]) -> tuple[float, torch.Tensor]:
    """Return loss and gradient of a step of these batches, as `take_step` computes them."""
    weights = objective.weights(objective.initial_state())
    update = UpdateSettings(lr=0.0, clip=0.0, weights=weights)
    distiller = Distiller(model, objective, dtype="float32").eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    result = take_step(distiller, optimizer, tuple(batches), number=1, update=update, world=World())
    return result.loss, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_each_cache_has_the_objective_of_its_tokenizer(two: TwoTeachers, world: Any) -> None:
    chosen = chosen_of(two, world, divergence="bucket-reverse-kl")
    assert [type(each) for each in chosen.by_cache] == [SameTokenizer, CrossTokenizer]
    assert isinstance(chosen.whole, SeveralObjectives)
    assert chosen.whole.parts == ("kd/1", "ce/1", "ce/2", "alm/2", "cells/2")
    assert [measure.name for measure in chosen.whole.measures] == ["bits_per_byte"]


def test_caches_that_are_read_alike_share_one_objective(world: Any, tools: Any, two: TwoTeachers) -> None:
    caches = [shards.open(two.same), shards.open(world.shards)]
    chosen = choose_objectives(Config(), student_of(world), caches, device=CPU)
    assert chosen.kinds == (0, 0)
    assert isinstance(chosen.whole, SameTokenizer)


def test_a_specialist_is_refused_beside_another_tokenizer(two: TwoTeachers, world: Any) -> None:
    with pytest.raises(TrainError, match="specialist is"):
        chosen_of(two, world, specialist=(5, 6))


def test_the_loss_of_a_step_weighs_objectives_by_their_positions(two: TwoTeachers, world: Any, tools: Any) -> None:
    chosen = chosen_of(two, world, balance="fixed")
    batches = batches_of(two, chosen)
    model = tools.llama(vocab=world.vocab, layers=2, seed=3)
    loss, grad = gradient(model, chosen.whole, list(batches))
    expected_loss, expected = 0.0, torch.zeros_like(grad)
    positions = [sum(batch.num_positions for batch in batches if batch.kind == kind) for kind in (0, 1)]
    assert min(positions) > 50
    assert positions[0] != positions[1]
    for kind, objective in enumerate(chosen.by_kind):
        own = [batch for batch in batches if batch.kind == kind]
        own_loss, own_grad = gradient(model, objective, own)
        share = positions[kind] / sum(positions)
        expected_loss += share * own_loss
        expected += share * own_grad
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-6)


def test_two_objectives_of_one_kind_are_one_objective(two: TwoTeachers, world: Any, tools: Any) -> None:
    """Rows divided between two equal objectives give the loss and gradient of one that has all."""
    chosen = chosen_of(two, world)
    one = chosen.by_kind[0]
    (batch, *others) = [b for b in batches_of(two, chosen) if b.kind == 0]
    model = tools.llama(vocab=world.vocab, layers=2, seed=3)
    expected_loss, expected = gradient(model, one, [batch, *others])
    both: tuple[CacheObjective, ...] = (one, one)
    apart = [batch, *(dataclasses.replace(other, kind=1) for other in others)]
    loss, grad = gradient(model, SeveralObjectives(objectives=both), apart)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-6)


def test_a_step_of_one_kind_has_its_loss_alone_and_no_numbers_of_the_other(
    two: TwoTeachers, world: Any, tools: Any
) -> None:
    chosen = chosen_of(two, world)
    whole = chosen.whole
    own = [batch for batch in batches_of(two, chosen) if batch.kind == 1]
    model = tools.llama(vocab=world.vocab, layers=2, seed=3)
    loss, grad = gradient(model, whole, [whole.empty_batch(), *own])
    alone, alone_grad = gradient(model, chosen.by_kind[1], own)
    assert loss == pytest.approx(alone, rel=1e-6)
    torch.testing.assert_close(grad, alone_grad, rtol=1e-4, atol=1e-6)
    totals = dict.fromkeys(whole.parts, 0) | {"ce/2": 10, "alm/2": 5, "cells/2": 6}
    scale = LossScale(weights=whole.weights(whole.initial_state()), totals=totals)
    assert {name[-2:] for name in whole.metrics(dict.fromkeys(whole.parts, 1.0), scale)} == {"/2"}


def test_norms_are_measured_and_smoothed_for_the_objective_that_has_them(
    two: TwoTeachers, world: Any, tools: Any
) -> None:
    chosen = chosen_of(two, world)
    whole, batches = chosen.whole, batches_of(two, chosen)
    assert whole.measures_norms(0)
    assert not whole.measures_norms(1)
    model = tools.llama(vocab=world.vocab, layers=2, seed=3)
    state = whole.initial_state()
    update = UpdateSettings(lr=0.0, clip=0.0, weights=whole.weights(state), measure_norms=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    distiller = Distiller(model, whole, dtype="float32").eval()
    result = take_step(distiller, optimizer, batches, number=1, update=update, world=World())
    assert set(result.norms) == {"ce/2", "alm/2", "cells/2"}
    after = whole.next_state(state, norms=result.norms, left_out={"a line": 2})
    again = whole.next_state(after, norms={}, left_out={"a line": 1})
    assert again is not None
    assert again.left_out == {"a line": 3}
    weights = whole.weights(again)
    assert weights["kd/1"] == pytest.approx(0.7)
    inverse = {part: 1.0 / norm for part, norm in result.norms.items()}
    for part, value in inverse.items():
        assert weights[part] == pytest.approx(value / sum(inverse.values()), rel=1e-6)
