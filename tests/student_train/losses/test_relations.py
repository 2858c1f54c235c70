"""Tests of the relation loss: against the definition, its gradients, and what it must not touch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from student_train.losses import relations
from student_train.losses.relations import RelationTargets, relation_loss

HEADS = 3
STUDENT_WIDTHS = (2, 5, 4)
TEACHER_WIDTHS = (6, 4, 4)
SPANS = ((1, 5), (8, 1), (9, 7))
"""Rows of 5, 1 and 7 positions among 20 places."""


def problem(seed: int = 0) -> tuple[tuple[torch.Tensor, ...], RelationTargets]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    count = sum(n for _, n in SPANS)
    stored = tuple(normal(count, HEADS, min(width, 5)) for width in TEACHER_WIDTHS)
    states = tuple(normal(20, HEADS * width).requires_grad_() for width in STUDENT_WIDTHS)
    return states, RelationTargets(vectors=stored, widths=TEACHER_WIDTHS, spans=SPANS)


def slow_terms(states: Any, targets: RelationTargets) -> torch.Tensor:
    """Return the terms by the definition, one inner product at a time, in float64."""
    terms = []
    start = 0
    for place, count in targets.spans:
        for i in range(count):
            total = torch.zeros((), dtype=torch.float64)
            for states_NW, teacher_SAw, width in zip(states, targets.vectors, targets.widths, strict=True):
                own_width = states_NW.shape[1] // HEADS
                for head in range(HEADS):
                    own = states_NW.double()[place : place + count, head * own_width : (head + 1) * own_width]
                    other = teacher_SAw.double()[start : start + count, head]
                    mine = torch.stack([own[i] @ own[j] / math.sqrt(own_width) for j in range(i + 1)]).log_softmax(0)
                    his = torch.stack([other[i] @ other[j] / math.sqrt(width) for j in range(i + 1)]).log_softmax(0)
                    total = total + (his.exp() * (his - mine)).sum() / (3 * HEADS)
            terms.append(total)
        start += count
    return torch.stack(terms)


@pytest.mark.parametrize("block", [2**22, 1])
def test_terms_and_gradients_are_those_of_the_definition(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relations, "BLOCK_ELEMENTS", block)  # 1: a head at a time
    states, targets = problem()
    total, terms_S = relation_loss(states, targets)
    expected_S = slow_terms(states, targets)
    torch.testing.assert_close(terms_S.double(), expected_S, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(total, terms_S.sum())
    expected = torch.autograd.grad(2.5 * expected_S.sum(), states)
    for found, grad in zip(torch.autograd.grad(2.5 * total, states), expected, strict=True):
        torch.testing.assert_close(found, grad, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    states, targets = problem(1)
    grads = torch.autograd.grad(relation_loss(states, targets)[0], states)
    generator = torch.Generator().manual_seed(5)
    for k in range(3):
        direction = torch.randn(states[k].shape, generator=generator)
        ends = []
        for step in (-1e-3, 1e-3):
            moved = [s.detach().double() for s in states]
            moved[k] = moved[k] + step * direction.double()
            ends.append(float(slow_terms(moved, targets).sum()))
        assert float((grads[k] * direction).sum()) == pytest.approx((ends[1] - ends[0]) / 2e-3, rel=1e-3)


def test_places_of_no_row_have_no_gradient_and_first_positions_no_term() -> None:
    states, targets = problem()
    total, terms_S = relation_loss(states, targets)
    inside = torch.zeros(20, dtype=torch.bool)
    for place, count in SPANS:
        inside[place : place + count] = True
    for grad in torch.autograd.grad(total, states):
        assert torch.equal(grad[~inside], torch.zeros_like(grad[~inside]))
        assert grad[1:6].abs().sum() > 0
    assert terms_S[[0, 5, 6]].abs().max() == 0  # a position alone relates to itself only


def test_rows_do_not_see_each_other() -> None:
    states, targets = problem()
    _, terms_S = relation_loss(states, targets)
    changed = tuple(s.detach().clone() for s in states)
    for states_NW in changed:
        states_NW[1:6] += 3
    _, changed_S = relation_loss(changed, targets)
    assert torch.equal(changed_S[5:], terms_S[5:])
    assert not torch.equal(changed_S[:5], terms_S[:5])


def test_equal_vectors_cost_nothing_and_half_precision_is_summed_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = tuple(torch.randn(7, HEADS, 4, generator=generator) for _ in range(3))
    states = tuple(v.flatten(1).bfloat16().requires_grad_() for v in vectors)
    rounded = tuple(s.detach().float().unflatten(1, (HEADS, 4)) for s in states)
    total, terms_S = relation_loss(states, RelationTargets(vectors=rounded, widths=(4, 4, 4), spans=((0, 7),)))
    assert terms_S.dtype == torch.float32
    assert terms_S.abs().max() < 1e-6
    for grad in torch.autograd.grad(total, states):
        assert grad.dtype == torch.bfloat16
        assert grad.abs().max() < 1e-5
