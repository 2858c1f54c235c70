"""A loop of one's own trains what `student-train` trains."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import student_train
from student_train import Config, Distillation, TrainError, learning_rate, make_optimizer
from tests.student_train.toy import REPOSITORY, losses, run


@pytest.fixture(scope="module")
def other(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a cache of source text, and a student with another tokenizer than its teacher."""
    from tokenizers import Tokenizer

    root = tmp_path_factory.mktemp("other")
    (root / "teacher").mkdir()
    (root / "student").mkdir()
    tools.train_tokenizer(root / "teacher")
    tools.train_tokenizer(root / "student", vocab=290, text="for name in names:\n    print(name, 1234)\n" * 20)
    tools.llama(vocab=290, layers=2, seed=3).save_pretrained(root / "student")
    tokenizer, rng = Tokenizer.from_file(str(root / "teacher" / "tokenizer.json")), np.random.default_rng(0)
    rows = []
    for d in range(16):
        text = f"def f_{d}(names):\n    for name in names:\n        print(name, {d * 137})\n    return x + {d}\n"
        ids = [0, *tokenizer.encode(text).ids]
        probs_PV = rng.dirichlet(np.full(300, 0.1), size=len(ids) - 1) + 1e-9
        probs_PV /= probs_PV.sum(1, keepdims=True)
        found = tools.records(probs_PV, rng=rng)
        rows.append(tools.chunk_of(np.array(ids), found, tools.info(d, size=len(text.encode()))))
    return tools.write_cache(root / "shards", rows, root / "teacher", vocab=300), root / "student"


def settings(shards: Path, student: Path, **more: Any) -> Config:
    named: dict[str, Any] = {
        "shards": (str(shards),), "student": str(student), "max_steps": 6, "batch_tokens": 150, "micro_tokens": 80,
        "held_out": 0.2, "dtype": "float32",
    }  # fmt: skip
    return Config(**{**named, **more})


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()


def train(distillation: Distillation, optimizer: torch.optim.Optimizer, *, last: int | None = None) -> list[float]:
    """Train as a user would; return the loss of each step."""
    found, config = [], distillation.config
    for step in distillation.steps(last):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step=step.number, total=distillation.total_steps)
        optimizer.zero_grad()
        loss = 0.0
        for batch in step.batches:
            output = distillation.loss(batch)
            output.loss.backward()
            loss += output.loss.item()
        nn.utils.clip_grad_norm_(distillation.model.parameters(), config.clip)
        optimizer.step()
        found.append(loss)
    return found


def test_every_public_name_is_in_the_reference_of_the_api() -> None:
    named = re.findall(r"^::: student_train\.(\w+)$", (REPOSITORY / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(student_train.__all__)
    assert all(getattr(student_train, name).__doc__ for name in named)
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        _ = student_train.distil


def test_settings_that_only_the_command_follows_are_refused(world: Any, student: Path) -> None:
    with pytest.raises(TrainError, match="lora_rank is 4: student-train does this"):
        Distillation(settings(world.shards, student, lora_rank=4), load(student))
    with pytest.raises(TrainError, match="student: found none, expected the folder or hub id"):
        Distillation(replace(settings(world.shards, student), student=""), load(student))


def test_processes_that_have_not_joined_are_refused(world: Any, student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainError, match="WORLD_SIZE is 2: found no process group"):
        Distillation(settings(world.shards, student), load(student))


def test_a_position_continues_the_order_and_belongs_to_it(world: Any, student: Path) -> None:
    config, model = settings(world.shards, student), load(student)
    whole, stopped, resumed = (Distillation(config, model) for _ in range(3))
    expected = [rows_of(step) for step in whole.steps()]
    assert len(expected) == whole.total_steps == 6
    first = [rows_of(step) for step in stopped.steps(2)]
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert (stopped.position, resumed.position) == (2, 2)
    assert first + [rows_of(step) for step in resumed.steps()] == expected
    other_seed = Distillation(settings(world.shards, student, seed=1), model)
    with pytest.raises(TrainError, match="found seed 0, expected 1"):
        other_seed.load_state_dict(stopped.state_dict())
    with pytest.raises(TrainError, match="found version 9, expected 2"):
        resumed.load_state_dict({**stopped.state_dict(), "version": 9})


def test_a_distributed_checkpoint_keeps_the_weights_of_the_loss_across_tokenizers(
    other: tuple[Path, Path], tmp_path: Path
) -> None:
    """It loads the keys that a fresh object has, and such an object has measured nothing."""
    import torch.distributed.checkpoint as dcp

    shards, student = other
    config, model = settings(shards, student), load(student)
    stopped, resumed, earlier = (Distillation(config, model) for _ in range(3))
    train(stopped, make_optimizer(model, config), last=2)
    measured = json.loads(stopped.state_dict()["objective"])
    assert set(measured["norms"]) == {"ce", "alm", "cells"}
    dcp.save({"distillation": stopped}, checkpoint_id=tmp_path / "step-2", no_dist=True)
    dcp.load({"distillation": resumed}, checkpoint_id=tmp_path / "step-2", no_dist=True)
    version_1 = {**stopped.state_dict(), "version": 1, **measured}
    del version_1["objective"]
    earlier.load_state_dict(json.loads(json.dumps(version_1)))
    assert resumed.state_dict() == earlier.state_dict() == stopped.state_dict()
    weights = [next(each.steps()).scale.weights for each in (stopped, resumed, earlier)]
    assert weights[0] == weights[1] == weights[2]


def rows_of(step: student_train.TrainStep) -> tuple[int, list[list[tuple[str, int]]]]:
    """Return the number of a step and the rows of its batches."""
    return step.number, [[(row.document, row.window) for row in scaled.batch.rows] for scaled in step.batches]


class Wrapper(nn.Module):
    """A wrapper as DDP's: it calls the model, and counts."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module, self.calls = model, 0

    def forward(self, *args: Any, **named: Any) -> Any:
        self.calls += 1
        return self.module(*args, **named)


def test_a_loss_runs_in_the_forward_pass_of_the_model_and_of_its_wrapper(world: Any, student: Path) -> None:
    model = load(student)
    distillation, wrapper = Distillation(settings(world.shards, student), model), Wrapper(model)
    seen: list[Any] = []
    hook = model.register_forward_hook(lambda module, args, output: seen.append(output))
    step = next(distillation.steps())
    gradients = []
    for through in (None, wrapper):
        model.zero_grad()
        for batch in step.batches:
            distillation.loss(batch, model=through).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    hook.remove()
    assert wrapper.calls == len(step.batches) > 1
    assert len(seen) == 2 * len(step.batches)
    assert all(output.requires_grad for output in seen)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert model(torch.zeros(1, 2, dtype=torch.long)).logits.shape == (1, 2, world.vocab)  # its own forward pass again


def test_the_loss_of_a_step_is_the_mean_over_its_positions(world: Any, student: Path) -> None:
    distillation = Distillation(settings(world.shards, student), load(student))
    for step in distillation.steps(3):
        outputs = [distillation.loss(batch) for batch in step.batches]
        terms = {part: torch.cat([output.terms[part] for output in outputs]) for part in ("kd", "ce")}
        assert len(terms["ce"]) == step.num_positions
        expected = 0.7 * terms["kd"].mean() + 0.3 * terms["ce"].mean()
        torch.testing.assert_close(sum(output.loss for output in outputs), expected)


@pytest.mark.slow
def test_adapters_of_peft_train_alone_and_are_merged_into_what_is_saved(
    world: Any, student: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    config, model = settings(world.shards, student, max_steps=2), load(student)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    distillation = Distillation(config, model)
    train(distillation, make_optimizer(model, config))
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if "lora_" in name}
    measures = distillation.evaluate(model=adapted)
    adapted.merge_and_unload()
    distillation.save(tmp_path / "out")
    saved = load(tmp_path / "out")
    assert {name for name, _ in saved.named_parameters()} == set(before)
    assert any(not torch.equal(parameter, before[name]) for name, parameter in saved.named_parameters())
    assert Distillation(replace(config, student=str(tmp_path / "out")), saved).evaluate() == pytest.approx(
        measures, rel=1e-4, abs=1e-6
    )


@pytest.mark.slow
def test_across_tokenizers_the_weights_of_the_loss_are_those_of_the_command(
    other: tuple[Path, Path], tmp_path: Path
) -> None:
    """Gradient norms are measured in steps 0 and 10; the loop is stopped after the second measurement."""
    shards, student = other
    config = settings(shards, student, max_steps=13, learning_rate=1e-2)
    run(replace(config, out=str(tmp_path / "out"), tensorboard=False, progress=False, threads=1))
    expected = [loss for _, loss in losses(tmp_path / "out")]

    model = load(student)
    distillation = Distillation(config, model)
    assert distillation.description == "alm + cells + cross-entropy, weighed by gradient norms"
    optimizer = make_optimizer(model, config)
    found = train(distillation, optimizer, last=11)
    state = json.loads(json.dumps(distillation.state_dict()))
    assert set(json.loads(state["objective"])["norms"]) == {"ce", "alm", "cells"}
    resumed = Distillation(config, model)
    resumed.load_state_dict(state)
    assert found + train(resumed, optimizer) == pytest.approx(expected, rel=1e-5)
    measured = json.loads((tmp_path / "out" / "run.json").read_text())["held_out"]["after"]
    measures = resumed.evaluate()
    assert set(measures) == {"chunk_kl", "cell_kl", "bits_per_byte", "top1_agreement", "calibration_error"}
    assert measures == pytest.approx({name: measured[name]["mean"] for name in measures}, rel=1e-4, abs=1e-6)
