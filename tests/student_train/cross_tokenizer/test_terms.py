"""Tests of the terms of the loss across tokenizers."""

from __future__ import annotations

import torch

from student_train.cross_tokenizer.terms import binary_kl


def test_binary_kl_equals_autograd_and_vanishes_for_equal_models() -> None:
    generator = torch.Generator().manual_seed(0)
    a = -torch.rand(200, generator=generator, dtype=torch.float64) * 30
    b = (-torch.rand(200, generator=generator, dtype=torch.float64) * 30).requires_grad_()
    for tau in (1.0, 5.0, 100.0):
        x, y = a / tau - 1e-6, b / tau - 1e-6
        dense = x.exp() * (x - y) + (1 - x.exp()) * ((1 - x.exp()).log() - (1 - y.exp()).log())
        (grad,) = torch.autograd.grad(dense.sum(), b)
        value, slope = binary_kl(a, b.detach(), tau)
        torch.testing.assert_close(value, dense.detach(), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(slope, grad, rtol=1e-6, atol=1e-9)
        value, slope = binary_kl(a, a, tau)
        torch.testing.assert_close(value, torch.zeros_like(a))
        torch.testing.assert_close(slope, torch.zeros_like(a), rtol=0, atol=1e-12)


def test_binary_kl_is_finite_where_either_model_is_certain_or_gives_no_mass() -> None:
    extremes = torch.tensor([0.0, 1e-6, -1e-7, -1e-3, -80.0, -1e4])
    for tau in (1.0, 5.0):
        value, slope = binary_kl(extremes[:, None].expand(6, 6).reshape(-1), extremes.repeat(6), tau)
        assert torch.isfinite(value).all()
        assert torch.isfinite(slope).all()
