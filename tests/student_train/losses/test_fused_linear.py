"""Is every loss what it says, and its gradient too? Each is held against a dense float64 reference.

The reference takes the chunk itself, not our padded targets, forms [positions, vocabulary] whole, and lets autograd
differentiate. Shapes: P positions, V vocabulary, H hidden.
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
from student_train.errors import TrainError
from student_train.losses import blockwise
from student_train.losses.blockwise import Projection
from student_train.losses.divergences import SMALLEST_TEACHER, target_kind
from student_train.losses.fused_linear import LossSpec, fused_loss, fused_scores
from student_train.losses.targets import Targets, TargetSpec, targets_of

H = 8
BUCKETS = [name for name in DIVERGENCES if name.startswith("bucket-")]


def make_row(tools: Any, *, seed: int, vocab: int, positions: int, sharpness: float) -> Chunk:
    rng = np.random.default_rng(seed)
    logits_PV = rng.normal(size=(positions, vocab)) * sharpness
    probs_PV = np.exp(logits_PV - logits_PV.max(1, keepdims=True))
    probs_PV /= probs_PV.sum(1, keepdims=True)
    tokens = rng.integers(0, vocab, size=positions + 1)
    return tools.chunk_of(tokens, tools.records(probs_PV, rng=rng), tools.info(seed))


def student(*, seed: int, vocab: int, positions: int, sharpness: float = 1.0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(positions + 3, H, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocab, H, generator=generator, dtype=torch.float64) * sharpness
    bias = torch.randn(vocab, generator=generator, dtype=torch.float64)
    index = torch.randperm(positions + 3, generator=generator)[:positions]
    return hidden, weight, bias, index


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


def targets_for(row: Chunk, spec: LossSpec, vocab: int) -> Targets:
    kind = "none" if spec.divergence is None else target_kind("kd", spec.divergence)
    column = 0 if spec.temperature != 1.0 else None
    made = TargetSpec(vocab_size=vocab, target_kind=kind, temperature=spec.temperature, temperature_column=column)
    return targets_of([row], made)


def check(row: Chunk, spec: LossSpec, made: tuple[torch.Tensor, ...], *, close: float = 2e-4) -> None:
    hidden, weight, bias, index = (x.clone() for x in made)
    for x in (hidden, weight, bias):
        x.requires_grad_()
    logits_PV = hidden[index] @ weight.T + bias
    expected, kd_P, ce_P = dense_loss(row, logits_PV, spec, 0.1)
    expected.backward()

    mine = [x.detach().float().requires_grad_() for x in (hidden, weight, bias)]
    targets = targets_for(row, spec, len(weight))
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
            live[0], Projection(*live[1:]), index_P=index, targets=targets_for(row, spec, vocab), spec=spec, scale=1.0
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
        targets=targets_for(row, spec, len(weight)),
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
    values, grads = [], []
    for turn in range(1500):
        row = tools.chunk_of(tokens, tools.records(probs_PV, rng=rng), tools.info(turn))
        assert len(row.draw_ids) > 0
        live = bias.clone().requires_grad_()
        out = fused_loss(
            hidden,
            Projection(weight, live),
            index_P=index,
            targets=targets_for(row, spec, vocab),
            spec=spec,
            scale=1.0,
        )
        out.loss.backward()
        values.append(float(out.loss.detach()))
        grads.append(live.grad.numpy())
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values) - full) < 4 * error + 1e-6
    # An id of probability t is drawn with probability t / w and then weighs w <= 0.04: its variance is below 0.04 t.
    # 50 draws from what is stored add their own, below t / 50.
    spread_V = np.sqrt((0.04 + 0.02 * (divergence == "rs-kd")) * probs_PV[0] / len(grads))
    assert (np.abs(np.mean(grads, axis=0) - (np.exp(logp_V) - probs_PV[0])) < 5 * spread_V + 1e-6).all()


def test_draws_of_rs_kd_depend_on_the_row_alone(tools: Any) -> None:
    rows = [make_row(tools, seed=seed, vocab=60, positions=9, sharpness=1.0) for seed in (1, 2, 3)]

    def made(rows: list[Chunk], **more: int) -> Targets:
        return targets_of(rows, TargetSpec(vocab_size=60, target_kind="rs-kd", **more))

    whole, again = made(rows), made(rows)
    assert torch.equal(whole.weight_PK, again.weight_PK)
    totals = whole.weight_PK.sum(1) + whole.bucket_P
    torch.testing.assert_close(totals, torch.ones(27))
    for i, row in enumerate(rows):
        alone = made([row])
        assert [sorted(filter(None, w)) for w in alone.weight_PK.tolist()] == [
            sorted(filter(None, w)) for w in whole.weight_PK[9 * i : 9 * i + 9].tolist()
        ]
        later = made([row], skip=4)
        assert [sorted(filter(None, w)) for w in later.weight_PK.tolist()] == [
            sorted(filter(None, w)) for w in alone.weight_PK[4:].tolist()
        ]
    assert not torch.equal(made(rows, seed=1).weight_PK, whole.weight_PK)
    counts = made(rows, rs_draws=7).weight_PK * 7
    torch.testing.assert_close(counts, counts.round())


def test_renormalised_top_k_does_not_converge_to_the_dense_loss(tools: Any) -> None:
    row = make_row(tools, seed=1, vocab=60, positions=3, sharpness=1.0)
    targets = targets_of([row], TargetSpec(vocab_size=60, target_kind="top-k"))
    torch.testing.assert_close(targets.weight_PK.sum(1), torch.ones(3))
    assert float(targets.tail_P.min()) > 0.1


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_head_of_the_whole_vocabulary_leaves_a_finite_loss(tools: Any, divergence: str) -> None:
    row = make_row(tools, seed=1, vocab=6, positions=5, sharpness=0.1)
    live = [x.float().requires_grad_() for x in student(seed=1, vocab=6, positions=5)[:3]]
    spec = LossSpec(divergence=divergence, ce_weight=0.3)
    out = fused_loss(
        live[0], Projection(*live[1:]), index_P=torch.arange(5), targets=targets_for(row, spec, 6), spec=spec, scale=1.0
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


def test_a_realised_token_that_the_student_lacks_is_refused(tools: Any) -> None:
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
    grads = []
    for turn in range(1500):
        row = tools.chunk_of(np.array([0, 5]), tools.records(probs_V[None], rng=rng), tools.info(turn))
        targets = targets_of([row], TargetSpec(vocab_size=vocab, target_kind="specialist", subset=subset))
        live = bias.clone().requires_grad_()
        out = fused_loss(hidden, Projection(weight, live), index_P=index, targets=targets, spec=spec, scale=1.0)
        out.loss.backward()
        grads.append(live.grad.numpy())
    student_V = (hidden[index] @ weight.T + bias)[0].double().softmax(0).numpy()
    inside = np.isin(np.arange(vocab), subset)
    rest = probs_V[~inside].sum()
    expected_V = np.where(inside, student_V - probs_V, student_V * (1 - rest / student_V[~inside].sum()))
    spread_V = np.where(inside, np.sqrt(0.04 * probs_V), np.sqrt(0.04 * rest)) / math.sqrt(len(grads))
    assert (np.abs(np.mean(grads, axis=0) - expected_V) < 5 * spread_V + 1e-6).all()


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_change_nothing_but_rounding_and_never_hold_all_positions(
    tools: Any, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    vocab, positions = 200, 70
    row = make_row(tools, seed=9, vocab=vocab, positions=positions, sharpness=2.0)
    made = [x.float() if x.dtype == torch.float64 else x for x in student(seed=9, vocab=vocab, positions=positions)]
    spec = LossSpec(divergence="forward-kl", ce_weight=0.3)
    targets = targets_for(row, spec, vocab)
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


def test_the_outer_derivative_scales_the_gradient(tools: Any) -> None:
    row = make_row(tools, seed=2, vocab=30, positions=4, sharpness=2.0)
    made = student(seed=2, vocab=30, positions=4)
    spec = LossSpec(divergence="bucket-js", ce_weight=0.5)
    grads = []
    for factor in (1.0, 3.0):
        live = [x.float().requires_grad_() for x in made[:3]]
        out = fused_loss(
            live[0], Projection(*live[1:]), index_P=made[3], targets=targets_for(row, spec, 30), spec=spec, scale=1.0
        )
        (factor * out.loss).backward()
        grads.append([x.grad for x in live])
    for one, three in zip(*grads, strict=True):
        torch.testing.assert_close(3.0 * one, three)
