"""Tests of targets: what each kind holds, and the loss of a specialist against a dense float64 reference."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from shards.format.chunk import Chunk
from student_train.errors import TrainError
from student_train.losses.blockwise import Projection
from student_train.losses.fused_linear import LossSpec, fused_loss
from student_train.losses.targets import TargetSpec, targets_of
from tests.student_train.losses.conftest import make_row, student


def test_renormalised_top_k_does_not_converge_to_the_dense_loss(tools: Any) -> None:
    row = make_row(tools, seed=1, vocab=60, positions=3, sharpness=1.0)
    targets = targets_of([row], TargetSpec(vocab_size=60, target_kind="top-k"))
    torch.testing.assert_close(targets.weight_PK.sum(1), torch.ones(3))
    assert float(targets.tail_P.min()) > 0.1


def test_a_label_that_the_student_lacks_is_refused(tools: Any) -> None:
    row = make_row(tools, seed=5, vocab=60, positions=6, sharpness=1.5)
    row = dataclasses.replace(row, tokens=np.full(7, 55, dtype=np.int32))
    with pytest.raises(TrainError, match="holds token 55; the student has 50 ids"):
        targets_of([row], TargetSpec(vocab_size=50, target_kind="linear"))


def specialist_reference(row: Chunk, logits_PV: torch.Tensor, subset: tuple[int, ...], ce_weight: float) -> Any:
    """Return the sum over positions of KL on {each id of the subset, all else} and cross-entropy, in float64."""
    logp_PV = logits_PV.log_softmax(1)
    vocab = logits_PV.shape[1]
    outside = torch.ones(vocab, dtype=torch.bool)
    outside[list(subset)] = False
    total = torch.zeros((), dtype=torch.float64)
    for p in range(len(logp_PV)):
        target_V = torch.zeros(vocab, dtype=torch.float64)
        head = slice(int(row.head_starts[p]), int(row.head_starts[p + 1]))
        drawn = row.draw_ids[int(row.draw_starts[p]) : int(row.draw_starts[p + 1])]
        target_V[row.head_ids[head].tolist()] = torch.from_numpy(row.head_probs[head].astype(np.float64))
        tau = 1.0 - float(target_V.sum())
        for i in drawn:
            target_V[int(i)] += tau / len(drawn)
        cells = [*target_V[list(subset)], (1.0 - target_V[list(subset)].sum()).clamp_min(0.0)]
        logs = [*logp_PV[p, list(subset)], logp_PV[p, outside].logsumexp(0)]
        kd = sum(t * (t.log() - log) for t, log in zip(cells, logs, strict=True) if t > 0)
        total = total + (1 - ce_weight) * kd - ce_weight * logp_PV[p, int(row.tokens[p + 1])]
    return total


@pytest.mark.parametrize("case", ["random", "certain", "empty tail", "saturated student", "one id"])
def test_a_specialist_keeps_its_ids_apart_and_has_one_class_for_the_rest(tools: Any, case: str) -> None:
    vocab, subset = 40, (0, 7, 8, 21, 39)  # with both edges of the vocabulary
    row = make_row(tools, seed=11, vocab=vocab, positions=6, sharpness=1.5)
    hidden, weight, bias, index = student(seed=11, vocab=vocab, positions=6)
    if case in ("certain", "empty tail"):
        probs_PV = np.full((6, vocab), 1e-300)
        probs_PV[:, 39] = 1.0 if case == "certain" else 0.75
        probs_PV[:, 0] = max(1e-300, 1.0 - probs_PV[0, 39])
        found = tools.records(probs_PV, rng=np.random.default_rng(0))
        row = tools.chunk_of(np.array([0, 39, 0, 0, 39, 5, 39]), found, tools.info(0))
    if case == "saturated student":
        bias[8] += 200.0
    if case == "one id":
        subset = (39,)
    live = [x.clone().requires_grad_() for x in (hidden, weight, bias)]
    expected = specialist_reference(row, live[0][index] @ live[1].T + live[2], subset, 0.3)
    expected.backward()
    targets = targets_of([row], TargetSpec(vocab_size=vocab, target_kind="specialist", subset=subset))
    mine = [x.float().requires_grad_() for x in (hidden, weight, bias)]
    spec = LossSpec(divergence="forward-kl", ce_weight=0.3)
    out = fused_loss(mine[0], Projection(*mine[1:]), index_P=index, targets=targets, spec=spec, scale=1.0)
    out.loss.backward()
    torch.testing.assert_close(out.loss.double(), expected, rtol=2e-4, atol=2e-4)
    for got, want in zip(mine, live, strict=True):
        torch.testing.assert_close(got.grad.double(), want.grad, rtol=2e-4, atol=2e-4)


def test_mean_gradient_of_a_specialist_over_draws_converges_to_the_dense_one(tools: Any) -> None:
    rng = np.random.default_rng(0)
    vocab, subset = 60, tuple(range(0, 60, 3))
    probs_V = np.exp(rng.normal(size=vocab) * 1.5)
    probs_V /= probs_V.sum()
    hidden, weight, bias, index = (
        x.float() if x.dtype == torch.float64 else x for x in student(seed=1, vocab=vocab, positions=1)
    )
    spec = LossSpec(divergence="forward-kl", ce_weight=0.0)
    rows = [
        tools.chunk_of(np.array([0, 5]), tools.records(probs_V[None], rng=rng), tools.info(turn))
        for turn in range(1500)
    ]
    live = bias.clone().requires_grad_()
    # One batch of all draws: its gradient by the bias is the sum of theirs.
    out = fused_loss(
        hidden[index].expand(len(rows), -1),
        Projection(weight, live),
        index_P=torch.arange(len(rows)),
        targets=targets_of(rows, TargetSpec(vocab_size=vocab, target_kind="specialist", subset=subset)),
        spec=spec,
        scale=1.0,
    )
    out.loss.backward()
    student_V = (hidden[index] @ weight.T + bias)[0].double().softmax(0).numpy()
    inside = np.isin(np.arange(vocab), subset)
    rest = probs_V[~inside].sum()
    expected_V = np.where(inside, student_V - probs_V, student_V * (1 - rest / student_V[~inside].sum()))
    spread_V = np.where(inside, np.sqrt(0.04 * probs_V), np.sqrt(0.04 * rest)) / math.sqrt(len(rows))
    assert (np.abs(live.grad.numpy() / len(rows) - expected_V) < 5 * spread_V + 1e-6).all()
