"""Tests of the logit map: it is found from the model, and the losses train through it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig

from student_train.data.packing import Packing
from student_train.errors import StudentError
from student_train.losses.blockwise import Projection
from student_train.losses.fused_linear import LossSpec, fused_loss
from student_train.losses.targets import TargetSpec
from student_train.model.head import PLAIN, LogitMap, find_logit_map
from student_train.objectives.base import LossScale
from student_train.objectives.distiller import Distiller
from student_train.objectives.same_tokenizer import SameTokenizer
from tests.student_train.conftest import SIZES

OBJECTIVE = SameTokenizer(
    loss_spec=LossSpec(divergence=None, ce_weight=1.0),
    targets=TargetSpec(vocab_size=60, target_kind="linear"),
    max_row_tokens=128,
)
PACKING = Packing(micro_tokens=1000)
HEADS = {
    "plain": (LlamaConfig(**SIZES), PLAIN),
    "soft-capped": (Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=2.0), LogitMap(cap=2.0)),
    "divided": (GraniteConfig(**SIZES, logits_scaling=7.0), LogitMap(scale=1.0 / 7.0)),
    "soft-capped, fresh": (
        Gemma2Config(**{**SIZES, "initializer_range": 0.002}, head_dim=8),
        LogitMap(cap=30.0),
    ),
    "multiplied": (CohereConfig(**SIZES, logit_scale=0.0625), LogitMap(scale=0.0625)),
}


def model_of(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", HEADS)
def test_the_map_is_found_with_the_configurations_own_numbers(name: str) -> None:
    config, expected = HEADS[name]
    assert find_logit_map(model_of(config)) == expected


@pytest.mark.parametrize("name", HEADS)
def test_cross_entropy_and_its_gradients_are_those_of_the_models_own_logits(tools: Any, name: str) -> None:
    config, logit_map = HEADS[name]
    model = model_of(config)
    row = tools.random_row(30)
    (batch,) = OBJECTIVE.batches([row], PACKING)
    scale = LossScale(weights={"ce": 1.0}, totals={"ce": 1})
    Distiller(model, OBJECTIVE, dtype="float32", logit_map=logit_map)(batch, scale).loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    ids = torch.from_numpy(row.tokens.astype(np.int64))
    logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum").backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            found[name], parameter.grad, rtol=1e-4, atol=1e-5 * float(parameter.grad.abs().max())
        )


@pytest.mark.parametrize("logit_map", [LogitMap(scale=0.5), LogitMap(cap=1.5), LogitMap(scale=2.0, cap=1.5)])
def test_the_divergences_gradient_is_the_slope_of_the_loss(tools: Any, logit_map: LogitMap) -> None:
    row = tools.random_row(20)
    (batch,) = OBJECTIVE.batches([row], PACKING)
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((20, 16), (60, 16), (60,)))
    along = torch.randn(20, 16, generator=generator)
    along /= along.norm()

    def loss(shift: float) -> tuple[torch.Tensor, torch.Tensor]:
        live = (hidden + shift * along).requires_grad_()
        out = fused_loss(
            live,
            Projection(weight, bias, logit_map=logit_map),
            index_P=batch.index_P,
            targets=batch.targets,
            spec=LossSpec(divergence="forward-kl", ce_weight=0.3),
            scale=1.0,
        )
        return out.loss, live

    value, live = loss(0.0)
    value.backward()
    step = 1e-2
    slope = (loss(step)[0].item() - loss(-step)[0].item()) / (2 * step)
    assert float((live.grad * along).sum()) == pytest.approx(slope, rel=2e-3, abs=2e-3)


def test_a_head_that_does_more_is_refused() -> None:
    names = {k: v for k, v in SIZES.items() if k != "num_key_value_heads"}
    with pytest.raises(StudentError, match="BertLMHeadModel that changes its logits after the projection"):
        find_logit_map(model_of(BertConfig(**names, is_decoder=True)))


def test_a_model_that_does_not_run_on_token_ids_is_one_line(monkeypatch: Any) -> None:
    model = model_of(HEADS["plain"][0])

    def fails(*_: Any, **__: Any) -> None:
        raise ValueError("You must specify pixel_values\nand more lines")

    monkeypatch.setattr(model.model, "forward", fails)
    with pytest.raises(
        StudentError, match=r"does not run on token ids alone \(You must specify pixel_values\); "
    ) as caught:
        find_logit_map(model)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_named() -> None:
    model = model_of(HEADS["plain"][0])
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(StudentError, match="values that are not finite in the forward pass of a LlamaForCausalLM"):
        find_logit_map(model)
