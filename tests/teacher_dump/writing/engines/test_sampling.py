"""Tests of sampling against slow references."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teacher_dump.writing.engines.sampling import choose_ids


def slow_choice(logits: list[float], temperature: float, top_p: float, draw: float) -> set[int]:
    """Return the ids that a draw may choose: two where it falls on a boundary, up to rounding."""
    top = max(logits)
    weights = [math.exp((value - top) / temperature) for value in logits]
    probs = [weight / sum(weights) for weight in weights]
    kept: list[int] = []
    mass = 0.0
    for i in sorted(range(len(probs)), key=lambda i: -probs[i]):
        if kept and mass >= top_p - 1e-6 and probs[i] < probs[kept[-1]] * (1 - 1e-6):
            break
        kept.append(i)
        mass += probs[i]
    total, low, chosen = sum(probs[i] for i in kept), 0.0, set()
    for i in sorted(kept):
        high = low + probs[i] / total
        if low - 1e-4 <= draw <= high + 1e-4:
            chosen.add(i)
        low = high
    return chosen


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    vocab=st.sampled_from([3, 40, 700]),
    temperature=st.sampled_from([0.3, 1.0, 30.0]),
    top_p=st.sampled_from([1e-6, 0.5, 0.95, 1.0]),
)
def test_the_choice_is_that_of_a_slow_reference(seed: int, vocab: int, temperature: float, top_p: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits_BV = torch.randn(4, vocab, generator=generator) * 3
    draws = torch.rand(4, generator=generator).tolist()
    ids, logprobs = choose_ids(logits_BV, temperature=temperature, top_p=top_p, draws=draws)
    for logits, draw, chosen, logprob in zip(logits_BV, draws, ids, logprobs, strict=True):
        if temperature < 30 or top_p == 1:  # near ties at the end of the nucleus are rounding
            assert chosen in slow_choice(logits.tolist(), temperature, top_p, draw)
        assert logprob == pytest.approx(float(logits.log_softmax(-1)[chosen]), abs=1e-4)


def test_greedy_takes_the_largest_logit() -> None:
    logits_BV = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])
    assert choose_ids(logits_BV, temperature=0, top_p=0.5, draws=[0.9, 0.9])[0] == [1, 0]


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_the_first_and_the_last_draw_choose_ids_of_the_nucleus(draw: float) -> None:
    logits_BV = torch.tensor([[-float("inf"), 0.0, 0.0, -float("inf")]])
    (chosen,), _ = choose_ids(logits_BV, temperature=1, top_p=1, draws=[draw])
    assert chosen == (1 if draw == 0 else 2)


def test_samples_follow_the_distribution() -> None:
    probs = torch.tensor([0.5, 0.2, 0.2, 0.1])
    draws = torch.rand(20_000, generator=torch.Generator().manual_seed(0)).tolist()
    ids, _ = choose_ids(probs.log().expand(len(draws), -1), temperature=1, top_p=0.85, draws=draws)
    shares = torch.bincount(torch.tensor(ids), minlength=4) / len(draws)
    torch.testing.assert_close(shares, torch.tensor([5 / 9, 2 / 9, 2 / 9, 0]), atol=0.015, rtol=0)


def test_rows_of_any_flatness_and_with_ties_are_drawn_as_from_the_whole_vocabulary() -> None:
    generator = torch.Generator().manual_seed(0)
    steep_BV = torch.randn(20, 2000, generator=generator) * 6
    flat_BV = torch.randn(20, 2000, generator=generator) / 10
    ties_BV = steep_BV.round() / 2  # hundreds of ids share the least probability that is kept
    for logits_BV in (steep_BV, flat_BV, ties_BV):
        draws = torch.rand(20, generator=generator).tolist()
        ids, _ = choose_ids(logits_BV, temperature=1, top_p=0.9, draws=draws)
        probs_BV = logits_BV.softmax(-1)
        sorted_BV = probs_BV.sort(-1, descending=True).values
        least_B1 = sorted_BV.gather(-1, (sorted_BV.cumsum(-1) < 0.9).sum(-1, keepdim=True))
        cumulative_BV = probs_BV.where(probs_BV >= least_B1, 0).double().cumsum(-1)
        shares_BV = cumulative_BV / cumulative_BV[:, -1:]
        assert ids == [int((row <= draw).sum()) for row, draw in zip(shares_BV, draws, strict=True)]
