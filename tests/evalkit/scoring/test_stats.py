"""Tests of pass@k, intervals and paired differences against their definitions."""

from __future__ import annotations

import itertools
import random

import pytest

from evalkit.scoring import stats


@pytest.mark.parametrize("num_passed", range(7))
@pytest.mark.parametrize("k", [1, 2, 6])
def test_pass_at_k_is_the_share_of_k_subsets_with_a_pass(num_passed: int, k: int):
    samples = [index < num_passed for index in range(6)]
    subsets = list(itertools.combinations(samples, k))
    assert stats.pass_at_k(6, num_passed, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_refuses_fewer_samples_than_k():
    with pytest.raises(ValueError, match="pass@10 needs at least 10"):
        stats.pass_at_k(5, 1, 10)


def test_the_bootstrap_interval_of_a_half_is_that_of_the_binomial():
    estimate = stats.interval([0.0, 1.0] * 82)
    assert estimate.mean == 0.5
    assert estimate.low == pytest.approx(0.5 - 1.96 * (0.25 / 164) ** 0.5, abs=0.01)
    assert estimate.high == pytest.approx(0.5 + 1.96 * (0.25 / 164) ** 0.5, abs=0.01)


def test_solving_none_still_leaves_doubt():
    estimate = stats.interval([0.0] * 164)
    assert (estimate.mean, estimate.low, estimate.method) == (0.0, 0.0, "wilson")
    assert estimate.high == pytest.approx(0.0229, abs=1e-3)


def test_intervals_are_the_same_every_time():
    values = [random.Random(0).random() for _ in range(50)]
    assert stats.interval(values) == stats.interval(values)


def test_pairing_sees_a_small_difference_between_noisy_runs():
    chance = random.Random(0)
    hardness = [chance.uniform(50, 150) for _ in range(40)]
    ours = [value + chance.gauss(-2, 1) for value in hardness]
    difference = stats.ratio_difference(ours, hardness, [100.0] * 40)
    assert difference.high < 0
    assert difference.mean == pytest.approx(-0.02, abs=0.01)


def test_ratios_weigh_documents_by_their_size():
    assert stats.ratio([1.0, 9.0], [1.0, 3.0]).mean == 2.5
