"""Tests that a loss stays on its device: model and batch are on torch's meta device, and a mix with the CPU raises.

A GPU is not needed. Tensors on the meta device have no values, so this tests devices and shapes only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torchao.quantization.qat  # noqa: F401 (its import makes tensors)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from shards.format.relations import RelationLayout
from student_train.data.packing import Packing
from student_train.losses.fused_linear import LossSpec
from student_train.losses.relations import relation_loss
from student_train.losses.targets import TargetSpec
from student_train.model.quantization import add_rounding, rounding
from student_train.objectives.base import LossScale
from student_train.objectives.distiller import Distiller
from student_train.objectives.same_tokenizer import SameTokenizer
from student_train.objectives.with_relations import WithRelations

DEVICE = torch.device("meta")
LAYOUT = RelationLayout(layer=3, heads=4, widths=(8, 4, 4), dims=8, seed=0)
"""Relations of `conftest.llama`: queries of 32 numbers, keys and values of 16."""
OBJECTIVE = WithRelations(
    base=SameTokenizer(
        loss_spec=LossSpec(divergence="forward-kl", ce_weight=0.25),
        targets=TargetSpec(vocab_size=60, target_kind="linear"),
        max_row_tokens=64,
    ),
    layout=LAYOUT,
    weight=0.5,
    relations_layer=1,
    rows_line="",
)


class OneDevice(TorchDispatchMode):
    """Raises where an operation gets tensors of several devices; copies and numbers are allowed."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.dim()]
        devices = {tensor.device.type for tensor in tensors}
        if len(devices) > 1 and "copy" not in func.__name__:
            raise AssertionError(f"{func}: found tensors on {', '.join(sorted(devices))}")
        return func(*args, **kwargs)


@pytest.fixture
def batch(tools: Any) -> Any:
    """Return two rows with vectors of another model, on the CPU."""
    teacher = tools.llama(vocab=60, seed=5)
    plain = [tools.random_row(n, seed=n) for n in (20, 13)]
    rows = [tools.with_relations(row, LAYOUT, tools.layer_vectors(teacher, row.tokens, 3)) for row in plain]
    (found,) = OBJECTIVE.batches(rows, Packing(micro_tokens=1000))
    return found


@pytest.fixture
def one_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know the meta device
    with OneDevice():
        yield


@pytest.mark.usefixtures("one_device")
def test_a_mix_of_devices_raises() -> None:
    with pytest.raises(AssertionError, match="found tensors on cpu, meta"):
        torch.ones(2, 2, device=DEVICE) @ torch.ones(2, 2)


@pytest.mark.parametrize("kind", ["", "int8", "int4"])
def test_a_loss_with_relations_and_rounded_weights_stays_on_its_device(
    tools: Any, batch: Any, kind: str, one_device: None
) -> None:
    with DEVICE:
        model = tools.llama(vocab=60, layers=2)
    if kind:
        add_rounding(model, kind)
    scale = LossScale(weights=OBJECTIVE.weights(None), totals=batch.targets.counts)
    with rounding(model, kind):
        out = Distiller(model, OBJECTIVE, dtype="float32")(batch.to(DEVICE), scale)
    assert {term.device for term in out.terms.values()} == {out.loss.device} == {DEVICE}


def test_gradients_of_relations_stay_on_their_device(batch: Any, one_device: None) -> None:
    relations = batch.targets.relations.to(DEVICE)
    states = [torch.zeros(batch.tokens_BT.numel(), width, device=DEVICE, requires_grad=True) for width in (32, 16, 16)]
    total, _ = relation_loss(tuple(states), relations)
    total.backward()
    assert [state.grad.device for state in states if state.grad is not None] == [DEVICE] * 3
