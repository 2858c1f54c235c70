"""Tests of the blocks of positions and of the gradients that are summed over them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from student_train.losses import blockwise
from student_train.losses.blockwise import Projection
from student_train.losses.fused_linear import LossSpec, fused_loss
from tests.student_train.losses.conftest import make_row, student, targets_for


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_change_nothing_but_rounding_and_never_hold_all_positions(
    tools: Any, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    vocab, positions = 200, 70
    row = make_row(tools, seed=9, vocab=vocab, positions=positions, sharpness=2.0)
    made = [x.float() if x.dtype == torch.float64 else x for x in student(seed=9, vocab=vocab, positions=positions)]
    spec = LossSpec(divergence="forward-kl", ce_weight=0.3)
    targets = targets_for([row], spec, vocab)
    seen: list[int] = []
    original = Projection.logits

    def watched(*args: Any) -> torch.Tensor:
        logits = original(*args)
        seen.append(len(logits))
        return logits

    monkeypatch.setattr(Projection, "logits", watched)

    def once() -> list[torch.Tensor]:
        live = [x.clone().requires_grad_() for x in made[:3]]
        out = fused_loss(live[0], Projection(*live[1:], dtype), index_P=made[3], targets=targets, spec=spec, scale=1.0)
        out.loss.backward()
        return [out.loss.detach(), *(x.grad for x in live)]

    whole = once()
    monkeypatch.setattr(blockwise, "BLOCK_ELEMENTS", 16 * vocab)
    seen.clear()
    parts, again = once(), once()
    assert max(seen) == 16
    close = 1e-4 if dtype == torch.float32 else 2e-2
    for a, b, c in zip(whole, parts, again, strict=True):
        torch.testing.assert_close(a, b, rtol=close, atol=close)
        assert torch.equal(b, c)


@pytest.mark.parametrize(("gigabytes", "elements"), [(80, 2**28), (24, 24 * 2**23), (2, 2**25)])
def test_blocks_on_a_gpu_are_larger_within_a_share_of_its_memory(
    gigabytes: int, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    properties = SimpleNamespace(total_memory=gigabytes * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert blockwise.block_elements(torch.device("cuda")) == elements
    assert blockwise.block_elements(torch.device("cpu")) == blockwise.BLOCK_ELEMENTS


def test_the_outer_derivative_scales_the_gradient(tools: Any) -> None:
    row = make_row(tools, seed=2, vocab=30, positions=4, sharpness=2.0)
    made = student(seed=2, vocab=30, positions=4)
    spec = LossSpec(divergence="bucket-js", ce_weight=0.5)
    grads = []
    for factor in (1.0, 3.0):
        live = [x.float().requires_grad_() for x in made[:3]]
        out = fused_loss(
            live[0], Projection(*live[1:]), index_P=made[3], targets=targets_for([row], spec, 30), spec=spec, scale=1.0
        )
        (factor * out.loss).backward()
        grads.append([x.grad for x in live])
    for one, three in zip(*grads, strict=True):
        torch.testing.assert_close(3.0 * one, three)
