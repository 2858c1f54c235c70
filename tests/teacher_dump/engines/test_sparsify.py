"""Records: each field against a float64 reference, and the expectation over draws against the distribution."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teacher_dump.engines.records import Records, RecordSpec
from teacher_dump.engines.sparsify import sparsify

SPEC = RecordSpec(threshold=0.04, temperatures=(1.5, 2.0, 4.0))


def reference(logits: np.ndarray) -> np.ndarray:
    """Return the softmax in float64."""
    x = logits.astype(np.float64)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def record(logits: np.ndarray, u: np.ndarray, spec: RecordSpec = SPEC, next_ids: np.ndarray | None = None) -> Records:
    ids = np.zeros(len(logits), np.int64) if next_ids is None else next_ids
    white = torch.zeros(logits.shape[1])
    white[::7] = 1
    return sparsify(torch.from_numpy(logits), torch.from_numpy(ids), torch.from_numpy(u), spec=spec, whitespace_V=white)


@pytest.mark.parametrize("temperatures", [SPEC.temperatures, (0.5, 2.0), (0.25, 0.5)])
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 4.0, 20.0]), st.sampled_from([2, 30, 1000]))
@settings(max_examples=40, deadline=None)
def test_every_field_agrees_with_a_float64_reference(
    temperatures: tuple[float, ...], seed: int, spread: float, vocab: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (5, vocab)).astype(np.float32)
    next_ids = rng.integers(0, vocab, 5)
    spec = dataclasses.replace(SPEC, temperatures=temperatures)
    records = record(logits, rng.random(5), spec, next_ids=next_ids)
    t = reference(logits)
    label_logp, white, entropy, *log_z = records.scalars.double().numpy().T
    assert label_logp == pytest.approx(np.log(t[np.arange(5), next_ids]), abs=1e-4)
    assert np.exp(white) == pytest.approx(t[:, ::7].sum(1), abs=1e-5)
    assert entropy == pytest.approx(-(t * np.log(np.maximum(t, 1e-300))).sum(1), abs=1e-4)
    for temperature, values in zip(temperatures, log_z, strict=True):
        assert values == pytest.approx(np.log((t ** (1 / temperature)).sum(1)), abs=1e-4 / min(1, temperature))
    for p in range(5):
        ids = records.head_ids[p][records.head_ids[p] >= 0].numpy()
        probs = records.head_probs[p][: len(ids)].numpy()
        assert probs == pytest.approx(t[p, ids], abs=1e-5)
        assert (np.diff(probs) <= 0).all()
        assert set(np.flatnonzero(t[p] >= SPEC.threshold + 1e-5)) <= set(ids)
        assert t[p].argmax() in ids or t[p, ids[0]] == pytest.approx(t[p].max())
        draws = records.draw_ids[p][records.draw_ids[p] >= 0].numpy()
        assert not set(draws) & set(ids)
        assert (np.diff(draws) >= 0).all()
        assert (t[p, draws] > 0).all()


@pytest.mark.parametrize("temperatures", [(), (4.0,), (0.5, 2.0), (1.5, 3.0, 6.0, 12.0), (2.0, 4.0, 8.0, 16.0)])
@pytest.mark.parametrize("vocab", [64, 100, 5000])
def test_log_z_holds_at_any_temperatures(temperatures: tuple[float, ...], vocab: int) -> None:
    logits = np.random.default_rng(8).normal(30, 6, (3, vocab)).astype(np.float32)
    t = reference(logits)
    log_z = record(logits, np.zeros(3), RecordSpec(temperatures=temperatures)).scalars[:, 3:].double().numpy()
    for z, temperature in enumerate(temperatures):
        assert log_z[:, z] == pytest.approx(np.log((t ** (1 / temperature)).sum(1)), abs=1e-4)


def test_equal_probabilities_are_in_the_order_of_their_ids() -> None:
    logits = np.full((1, 700), -20, np.float32)
    logits[0, [650, 3, 64, 63, 128]] = 2
    assert record(logits, np.zeros(1)).head_ids[0, :6].tolist() == [3, 63, 64, 128, 650, -1]


@pytest.mark.slow
@pytest.mark.parametrize("vocab", [50_257, 262_144])
def test_memory_stays_within_256_mib_at_any_vocabulary(vocab: int) -> None:
    """Measured in a process of its own: its peak with projection and sparsification, less its peak before."""
    code = f"""
import re, torch
from pathlib import Path
from teacher_dump.engines.records import RecordSpec
from teacher_dump.engines.sparsify import sparsify
torch.set_num_threads(1)
# Not ru_maxrss: a child inherits its parent's across fork and exec, and the tests' process is the larger one.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
spec, step = RecordSpec(), RecordSpec.block_positions({vocab})
count = step + 2  # a whole block, and the start of the next one
weight, hidden, white = torch.randn({vocab}, 8), torch.randn(count, 8), torch.zeros({vocab})
ids, u = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.float64)
(hidden[:2] @ weight.T).softmax(1)
before = peak()
for i in range(0, count, step):
    part = slice(i, i + step)
    sparsify(hidden[part] @ weight.T, ids[part], u[part], spec=spec, whitespace_V=white).pack()
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 40 < float(done.stdout) < 256  # MiB; less than a block of logits would mean that nothing was measured


def test_the_expected_weight_of_every_id_is_its_probability() -> None:
    """A sweep of the offset over its whole range is the exact mean over draws: float64 weights must equal p."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2.5, (1, 200)).astype(np.float32)
    t = reference(logits)[0]
    sweep = 4000
    u = (np.arange(sweep) + 0.5) / sweep
    records = record(np.repeat(logits, sweep, 0), u)
    weights = np.zeros(200)
    tail = 1 - records.head_probs.double().sum(1)
    for p in range(sweep):
        head = records.head_ids[p] >= 0
        weights[records.head_ids[p][head]] += records.head_probs[p][head].double().numpy()
        draws = records.draw_ids[p][records.draw_ids[p] >= 0].numpy()
        np.add.at(weights, draws, float(tail[p]) / len(draws))
    assert weights / sweep == pytest.approx(t, abs=2 / sweep)


def test_the_mean_over_random_draws_converges_to_the_distribution() -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 2, (1, 100)).astype(np.float32)
    t = reference(logits)[0]
    errors = []
    for count in (50, 5000):
        records = record(np.repeat(logits, count, 0), rng.random(count))
        weights = np.zeros(100)
        drawn = records.draw_ids >= 0
        weight = (1 - records.head_probs.double().sum(1)) / drawn.sum(1)
        np.add.at(weights, records.draw_ids[drawn].numpy(), weight.repeat_interleave(drawn.sum(1)).numpy())
        head = records.head_ids >= 0
        np.add.at(weights, records.head_ids[head].numpy(), records.head_probs[head].double().numpy())
        errors.append(np.abs(weights / count - t).max())
    assert errors[1] < errors[0] / 4
    assert errors[1] < 2e-3


def test_draws_do_not_depend_on_the_rest_of_the_batch() -> None:
    rng = np.random.default_rng(5)
    logits, u = rng.normal(0, 2, (9, 500)).astype(np.float32), rng.random(9)
    whole = record(logits, u).pack()
    parts = torch.cat([record(logits[i : i + 2], u[i : i + 2]).pack() for i in range(0, 9, 2)])
    assert torch.equal(
        whole[:, : 2 * SPEC.head_slots + SPEC.draw_slots], parts[:, : 2 * SPEC.head_slots + SPEC.draw_slots]
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    logits = np.zeros((1, 10), np.float32)
    logits[0, 3] = value
    with pytest.raises(ValueError, match="not finite"):
        record(logits, np.zeros(1))


def test_a_certain_teacher_has_a_head_of_one_and_no_draws() -> None:
    logits = np.zeros((1, 100), np.float32)
    logits[0, 7] = 100
    records = record(logits, np.array([0.999]))
    assert records.head_ids[0, :2].tolist() == [7, -1]
    assert (records.draw_ids == -1).all()


@pytest.mark.parametrize("u", [0.0, 0.5, np.nextafter(1.0, 0)])
def test_offsets_at_the_edges_draw_valid_ids(u: float) -> None:
    records = record(np.zeros((1, 300), np.float32), np.array([u]))
    draws = records.draw_ids[0]
    assert ((draws >= 0) & (draws < 300)).sum() == 25
