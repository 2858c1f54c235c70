"""Measures of a verifier against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from evalkit.rerank.verifier.fit import LabelledTask
from evalkit.rerank.verifier.quality import NUM_BINS, measure, reliability
from tests.evalkit.rerank.toy_evidence import evidence_of


def task(right: list[bool], samples: list[int]) -> LabelledTask:
    """Return a task of programs with different outputs."""
    evidence = evidence_of(outputs=[[n] for n in range(len(right))], passed=[[]] * len(right), samples=samples)
    return LabelledTask.of(evidence, [right[program] for program in samples])


def test_measures_equal_their_definitions() -> None:
    first, second = task([True, False, False], [0, 1, 1, 2]), task([False, True], [0, 1])
    third = task([False, False], [0, 1])
    chances = [np.array([0.8, 0.3, 0.6]), np.array([0.9, 0.4]), np.array([0.1, 0.2])]
    quality = measure(list(zip((first, second, third), chances, strict=True)), use_log_probs=False)
    samples = [(0.8, 1), (0.3, 0), (0.3, 0), (0.6, 0), (0.9, 0), (0.4, 1), (0.1, 0), (0.2, 0)]
    assert quality.brier == pytest.approx(sum((p - y) ** 2 for p, y in samples) / 8)
    assert quality.brier_of_share == pytest.approx(0.25 * 0.75)
    pairs = [(a[0] > b[0]) + (a[0] == b[0]) / 2 for a, b in itertools.product(samples, samples) if a[1] > b[1]]
    assert quality.auc == pytest.approx(sum(pairs) / len(pairs))
    assert quality.auc_within_tasks == pytest.approx((1.0 + 0.0) / 2)
    assert (quality.tasks, quality.samples, quality.tasks_with_right) == (3, 8, 2)
    assert quality.wrong_choices == 1
    assert quality.scores["verifier"].estimates["pass@1"].mean == pytest.approx(1 / 3)
    assert quality.scores["oracle"].estimates["pass@1"].mean == pytest.approx(2 / 3)
    assert quality.scores["random"].estimates["pass@1"].mean == pytest.approx((1 / 4 + 1 / 2 + 0) / 3)
    assert quality.to_dict()["wrong_choice_share"] == 0.5


def test_without_a_right_sample_there_is_no_auc_and_no_wrong_choice() -> None:
    quality = measure([(task([False], [0, 0]), np.array([0.2]))], use_log_probs=False)
    assert (quality.auc, quality.auc_within_tasks, quality.tasks_with_right) == (None, None, 0)
    assert quality.to_dict()["wrong_choice_share"] is None


def test_bins_hold_every_sample_once_and_their_means() -> None:
    generator = np.random.default_rng(0)
    chance, right = generator.random(500), generator.random(500) < 0.5
    chance[:3] = (0.0, 1.0, 0.1)
    bins = reliability(chance, right)
    assert len(bins) == NUM_BINS
    assert sum(item.samples for item in bins) == 500
    for item in bins:
        inside = [n for n in range(500) if item.low <= chance[n] < item.high or (item.high == 1 and chance[n] == 1)]
        assert item.samples == len(inside)
        assert item.predicted == pytest.approx(np.mean(chance[inside]))
        assert item.right == pytest.approx(np.mean(right[inside]))
