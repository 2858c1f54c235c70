"""Tests of every divergence and its gradient against a dense float64 reference.

The reference takes the row of records instead of the padded targets, forms [positions, vocabulary] whole, and is
differentiated by autograd. Shapes: P positions, V vocabulary size, H hidden size.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.format.chunk import Chunk
from student_train.choices import DIVERGENCES
from student_train.losses.blockwise import Projection
from student_train.losses.divergences import SMALLEST_TEACHER
from student_train.losses.fused_linear import LossSpec, fused_loss, fused_scores
from student_train.losses.targets import TargetSpec, targets_of
from tests.student_train.losses.conftest import make_row, student, targets_for

BUCKETS = [name for name in DIVERGENCES if name.startswith("bucket-")]


def rs_kd_target(row: Chunk, p: int, weights: list[float], *, seed: int, draws: int) -> list[float]:
    """Return RS-KD's counts / N over classes of the given weights: one number at a time, from the definition."""
    text = f"rs-kd/{seed}/{row.rows[0].document}/{row.rows[0].window}"
    start = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    counts = [0] * len(weights)
    for i in range(draws):
        z = (start + (p * draws + i + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        left = ((z ^ (z >> 31)) >> 11) * 2.0**-53 * sum(weights)
        place = 0
        while left >= weights[place]:
            left -= weights[place]
            place += 1
        counts[place] += 1
    return [count / draws for count in counts]


def dense_divergence(row: Chunk, p: int, logits_V: torch.Tensor, name: str, *, T: float, skew: float) -> torch.Tensor:
    """Return T^2 times the divergence at one position, from the definitions, in float64."""
    vocab = len(logits_V)
    logp_V = (logits_V / T).log_softmax(0)
    head = slice(int(row.head_starts[p]), int(row.head_starts[p + 1]))
    draws = slice(int(row.draw_starts[p]), int(row.draw_starts[p + 1]))
    ids = torch.from_numpy(row.head_ids[head].astype(np.int64))
    t = torch.from_numpy(row.head_probs[head].astype(np.float64))
    t, ids = t[ids < vocab], ids[ids < vocab]
    if T != 1.0:
        t = (t.log() / T - float(row.log_z[p, 0])).exp()
    tau = max(0.0, 1.0 - float(t.sum()))
    outside = torch.ones(vocab, dtype=torch.bool)
    outside[ids] = False
    log_tail = logp_V[outside].logsumexp(0)
    drawn = [int(i) for i in row.draw_ids[draws] if i < vocab]
    if name == "forward-kl" and drawn:
        target_V = torch.zeros(vocab, dtype=torch.float64)
        target_V[ids] = t
        for i in drawn:
            target_V[i] += tau / len(drawn)
        return -(target_V * logp_V).sum() - float(row.entropy[p])
    if name == "top-k":
        t = t / t.sum()
        return (t * (t.log() - logp_V[ids])).sum()
    if name == "rs-kd":
        unique = sorted(set(drawn))
        e = [*t.tolist(), *(tau * drawn.count(i) / len(drawn) for i in unique), 0.0 if drawn else tau]
        shares = rs_kd_target(row, p, e, seed=0, draws=50)
        logs = [*logp_V[ids], *(logp_V[i] for i in unique), log_tail]
        own = sum(a * math.log(a) for a in [*t.tolist(), tau] if a > 0)
        value = -sum(c * log for c, log in zip(shares, logs, strict=True) if c > 0)
        return value + (-float(row.entropy[p]) if drawn else own)
    cells = [(float(a), logp_V[i]) for a, i in zip(t, ids, strict=True)]
    if tau > 0.0 or name not in ("forward-kl", "bucket-forward-kl"):
        cells.append((tau, log_tail))
    total = torch.zeros((), dtype=torch.float64)
    for a, log_s in cells:
        s = log_s.exp()
        log_a = math.log(a) if a > 0 else -math.inf
        if name in ("forward-kl", "bucket-forward-kl"):
            total = total + a * (log_a - log_s)
        elif name == "bucket-reverse-kl":
            total = total + s * (log_s - math.log(max(a, SMALLEST_TEACHER)))
        elif name == "bucket-skew-kl":
            total = total + (a * (log_a - (skew * a + (1 - skew) * s).log()) if a > 0 else 0.0)
        else:
            m = (a + s) / 2
            total = total + 0.5 * s * (log_s - m.log()) + (0.5 * a * (log_a - m.log()) if a > 0 else 0.0)
    return T * T * total


def dense_loss(
    row: Chunk, logits_PV: torch.Tensor, spec: LossSpec, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    realised = torch.from_numpy(row.tokens[1:].astype(np.int64))
    ce_P = -logits_PV.log_softmax(1)[torch.arange(len(realised)), realised]
    if spec.divergence is None:
        return scale * ce_P.sum(), torch.zeros_like(ce_P), ce_P
    kd_P = torch.stack(
        [
            dense_divergence(row, p, logits_PV[p], spec.divergence, T=spec.temperature, skew=spec.skew)
            for p in range(len(realised))
        ]
    )
    return scale * ((1 - spec.ce_weight) * kd_P + spec.ce_weight * ce_P).sum(), kd_P, ce_P


def check(row: Chunk, spec: LossSpec, made: tuple[torch.Tensor, ...], *, close: float = 2e-4) -> None:
    hidden, weight, bias, index = (x.clone() for x in made)
    for x in (hidden, weight, bias):
        x.requires_grad_()
    logits_PV = hidden[index] @ weight.T + bias
    expected, kd_P, ce_P = dense_loss(row, logits_PV, spec, 0.1)
    expected.backward()

    mine = [x.detach().float().requires_grad_() for x in (hidden, weight, bias)]
    targets = targets_for([row], spec, len(weight))
    found = fused_loss(mine[0], Projection(*mine[1:]), index_P=index, targets=targets, spec=spec, scale=0.1)
    found.loss.backward()
    torch.testing.assert_close(found.terms["kd"].double(), kd_P, rtol=close, atol=close)
    torch.testing.assert_close(found.terms["ce"].double(), ce_P, rtol=close, atol=close)
    torch.testing.assert_close(found.loss.double(), expected, rtol=close, atol=close)
    for got, want in zip(mine, (hidden, weight, bias), strict=True):
        assert torch.isfinite(got.grad).all()
        torch.testing.assert_close(got.grad.double(), want.grad, rtol=close, atol=close)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    vocab=st.integers(30, 90),  # more than a head holds
    positions=st.integers(1, 7),
    sharpness=st.floats(0.0, 6.0),
    student_sharpness=st.floats(0.0, 3.0),
    divergence=st.sampled_from([None, *DIVERGENCES]),
    ce_weight=st.sampled_from([0.0, 0.3, 1.0]),
    hot=st.booleans(),
)
def test_value_and_gradient_equal_the_dense_reference(
    tools: Any,
    seed: int,
    vocab: int,
    positions: int,
    sharpness: float,
    student_sharpness: float,
    divergence: str | None,
    ce_weight: float,
    hot: bool,
) -> None:
    row = make_row(tools, seed=seed, vocab=vocab, positions=positions, sharpness=sharpness)
    made = student(seed=seed, vocab=vocab, positions=positions, sharpness=student_sharpness)
    temperature = 2.0 if hot and divergence in BUCKETS else 1.0
    spec = LossSpec(divergence=divergence, ce_weight=ce_weight, temperature=temperature, skew=0.1)
    check(row, spec, made)


@pytest.mark.parametrize("divergence", [None, *DIVERGENCES])
@pytest.mark.parametrize("case", ["certain", "empty tail", "edge ids", "saturated student", "minus infinity", "flat"])
def test_hostile_inputs_equal_the_dense_reference(tools: Any, divergence: str | None, case: str) -> None:
    vocab, positions = 40, 4
    row = make_row(tools, seed=3, vocab=vocab, positions=positions, sharpness=0.01 if case == "flat" else 2.0)
    hidden, weight, bias, index = student(seed=4, vocab=vocab, positions=positions)
    if case in ("certain", "empty tail"):
        probs_PV = np.zeros((positions, vocab))
        probs_PV[:, 0] = 1.0 if case == "certain" else 0.75
        probs_PV[:, vocab - 1] += 1.0 - probs_PV[:, 0]
        probs_PV = np.maximum(probs_PV, 1e-300)
        tokens = np.array([0, 0, vocab - 1, 0, vocab - 1])
        rng = np.random.default_rng(0)
        row = tools.chunk_of(tokens, tools.records(probs_PV, rng=rng), tools.info(0))
    if case == "edge ids":
        row = dataclasses.replace(row, tokens=np.array([0, 0, vocab - 1, 0, vocab - 1], dtype=np.int32))
    if case == "saturated student":
        # The tail's exponentials underflow float32; the loss still sees its logarithm.
        bias[int(row.head_ids[0])] += 200.0
    if case == "minus infinity":
        unused = [i for i in range(vocab) if i not in set(row.head_ids) | set(row.draw_ids) | set(row.tokens.tolist())]
        bias[unused[:2]] = -math.inf
        weight[unused[:2]] = 0.0
    spec = LossSpec(divergence=divergence, ce_weight=0.3)
    if case == "minus infinity":
        check_without_infinite_bias(row, spec, (hidden, weight, bias, index))
    else:
        check(row, spec, (hidden, weight, bias, index))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_an_id_of_the_head_that_the_student_rules_out(tools: Any, divergence: str) -> None:
    """Infinitely wrong for a forward KL, which training refuses by name; an ordinary number for the others."""
    vocab = 40
    row = make_row(tools, seed=3, vocab=vocab, positions=4, sharpness=2.0)
    hidden, weight, bias, index = student(seed=4, vocab=vocab, positions=4)
    out_of = int(row.head_ids[0])
    row = dataclasses.replace(row, tokens=np.where(row.tokens == out_of, (out_of + 1) % vocab, row.tokens))
    bias[out_of], weight[out_of] = -math.inf, 0.0
    spec = LossSpec(divergence=divergence, ce_weight=0.3)
    if divergence in ("bucket-reverse-kl", "bucket-skew-kl", "bucket-js"):
        check_without_infinite_bias(row, spec, (hidden, weight, bias, index))
    else:
        live = [x.float().requires_grad_() for x in (hidden, weight, bias)]
        out = fused_loss(
            live[0], Projection(*live[1:]), index_P=index, targets=targets_for([row], spec, vocab), spec=spec, scale=1.0
        )
        assert out.terms["kd"][0] == math.inf
        assert torch.isfinite(out.terms["ce"]).all()
        check(row, spec, (hidden, weight, bias.clamp_min(-1e4), index), close=1e-3)


def check_without_infinite_bias(row: Chunk, spec: LossSpec, made: tuple[torch.Tensor, ...]) -> None:
    """Ids that the student rules out (bias -inf) weigh like ids with a bias of -1e4."""
    finite = tuple(x.clamp_min(-1e4) if x.dtype == torch.float64 else x for x in made)
    check(row, spec, finite)
    hidden, weight, bias = (x.float().requires_grad_() for x in made[:3])
    out = fused_loss(
        hidden,
        Projection(weight, bias),
        index_P=made[3],
        targets=targets_for([row], spec, len(weight)),
        spec=spec,
        scale=1.0,
    )
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert torch.isfinite(hidden.grad).all()
    assert torch.isfinite(weight.grad).all()


@pytest.mark.parametrize("divergence", ["forward-kl", "rs-kd"])
def test_mean_over_draws_converges_to_the_dense_loss(tools: Any, divergence: str) -> None:
    rng = np.random.default_rng(0)
    vocab = 60
    probs_PV = np.exp(rng.normal(size=(1, vocab)) * 1.5)
    probs_PV /= probs_PV.sum()
    tokens = np.array([0, 5])
    hidden, weight, bias, index = (
        x.float() if x.dtype == torch.float64 else x for x in student(seed=1, vocab=vocab, positions=1)
    )
    spec = LossSpec(divergence=divergence, ce_weight=0.0)
    logp_V = (hidden[index] @ weight.T + bias)[0].double().log_softmax(0).numpy()
    full = float((probs_PV[0] * (np.log(probs_PV[0]) - logp_V)).sum())
    rows = [tools.chunk_of(tokens, tools.records(probs_PV, rng=rng), tools.info(turn)) for turn in range(1500)]
    assert all(len(row.draw_ids) > 0 for row in rows)
    live = bias.clone().requires_grad_()
    # One batch of all draws: its gradient by the bias is the sum of theirs.
    out = fused_loss(
        hidden[index].expand(len(rows), -1),
        Projection(weight, live),
        index_P=torch.arange(len(rows)),
        targets=targets_for(rows, spec, vocab),
        spec=spec,
        scale=1.0,
    )
    out.loss.backward()
    values = out.terms["kd"].double().numpy()
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values) - full) < 4 * error + 1e-6
    # An id of probability t is drawn with probability t / w and then weighs w <= 0.04: its variance is below 0.04 t.
    # 50 draws from what is stored add their own, below t / 50.
    spread_V = np.sqrt((0.04 + 0.02 * (divergence == "rs-kd")) * probs_PV[0] / len(rows))
    assert (np.abs(live.grad.numpy() / len(rows) - (np.exp(logp_V) - probs_PV[0])) < 5 * spread_V + 1e-6).all()


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_head_of_the_whole_vocabulary_leaves_a_finite_loss(tools: Any, divergence: str) -> None:
    row = make_row(tools, seed=1, vocab=6, positions=5, sharpness=0.1)
    live = [x.float().requires_grad_() for x in student(seed=1, vocab=6, positions=5)[:3]]
    spec = LossSpec(divergence=divergence, ce_weight=0.3)
    out = fused_loss(
        live[0],
        Projection(*live[1:]),
        index_P=torch.arange(5),
        targets=targets_for([row], spec, 6),
        spec=spec,
        scale=1.0,
    )
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert all(torch.isfinite(x.grad).all() for x in live)


def test_ids_that_the_student_lacks_join_the_tail(tools: Any) -> None:
    row = make_row(tools, seed=5, vocab=60, positions=6, sharpness=1.5)
    row = dataclasses.replace(row, tokens=np.minimum(row.tokens, 49))
    assert int(row.head_ids.max()) >= 50
    for divergence in ("forward-kl", "bucket-js"):
        check(row, LossSpec(divergence=divergence, ce_weight=0.3), student(seed=5, vocab=50, positions=6))


def test_scores_equal_the_dense_reference(tools: Any) -> None:
    row = make_row(tools, seed=7, vocab=50, positions=9, sharpness=2.0)
    hidden, weight, bias, index = student(seed=7, vocab=50, positions=9)
    logits_PV = hidden[index] @ weight.T + bias
    _, kl_P, nll_P = dense_loss(row, logits_PV, LossSpec(divergence="forward-kl", ce_weight=0.0), 1.0)
    top = torch.from_numpy(row.head_ids[row.head_starts[:-1]].astype(np.int64))
    found = fused_scores(
        hidden.float(),
        Projection(weight.float(), bias.float()),
        index_P=index,
        targets=targets_of([row], TargetSpec(vocab_size=50, target_kind="linear")),
    )
    torch.testing.assert_close(found.kl_P.double(), kl_P, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.nll_P.double(), nll_P, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.same_P, logits_PV.argmax(1) == top)
    torch.testing.assert_close(found.confidence_P.double(), logits_PV.softmax(1).amax(1), rtol=1e-4, atol=1e-4)
    assert torch.equal(found.hit_P, logits_PV.argmax(1) == torch.from_numpy(row.tokens[1:].astype(np.int64)))
