"""Tests of the bootstrap over documents, beside a slow version."""

from __future__ import annotations

import numpy as np
import pytest

from student_train.evaluation.intervals import DocumentSums, interval_text, known_figures

DOCUMENTS = ["b", "a", "b", "c", "a", "d"]
ABOVE = np.array([[1.0, 3.0], [2.0, 0.0], [4.0, 1.0], [8.0, 5.0], [1.0, 2.0], [0.5, 0.5]])
BELOW = np.array([[2.0, 1.0], [3.0, 2.0], [4.0, 0.0], [9.0, 3.0], [5.0, 1.0], [1.0, 1.0]])


def slow(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return the ratio of each of 2,000 resamples, document by document."""
    names = sorted(set(DOCUMENTS))
    random = np.random.RandomState(0)
    ratios = []
    for _ in range(2000):
        rows = [
            i for d in random.randint(len(names), size=len(names)) for i, n in enumerate(DOCUMENTS) if n == names[d]
        ]
        ratios.append(above[rows].sum() / below[rows].sum())
    return np.array(ratios)


def test_an_interval_is_that_of_the_slow_version() -> None:
    sums = DocumentSums(DOCUMENTS)
    assert sums.num_documents == 4
    for column, found in enumerate(sums.ratios(ABOVE, BELOW)):
        samples = slow(ABOVE[:, column], BELOW[:, column])
        expected = np.percentile(samples, [2.5, 97.5])
        assert found["standard_error"] == pytest.approx(samples.std())
        assert found["mean"] == pytest.approx(ABOVE[:, column].sum() / BELOW[:, column].sum())
        assert [found["low"], found["high"]] == pytest.approx(list(expected))


def test_a_difference_is_paired() -> None:
    sums = DocumentSums(DOCUMENTS)
    nothing, shifted = (sums.ratio_differences((ABOVE + shift * BELOW, BELOW), (ABOVE, BELOW)) for shift in (0.0, 0.25))
    for interval in nothing:
        assert interval == {"mean": 0.0, "low": 0.0, "high": 0.0, "standard_error": 0.0}
    for interval in shifted:  # the same in every row, so nothing is uncertain
        assert list(interval.values()) == pytest.approx([0.25, 0.25, 0.25, 0.0])


def test_resamples_without_anything_to_divide_by_are_left_out() -> None:
    above, below = np.zeros((6, 1)), np.zeros((6, 1))
    above[3], below[3] = 3.0, 4.0  # only in document c
    (interval,) = DocumentSums(DOCUMENTS).ratios(above, below)
    assert list(interval.values()) == pytest.approx([0.75, 0.75, 0.75, 0.0])


def test_a_measure_without_anything_to_divide_by_is_left_out() -> None:
    above, below = np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[4.0, 0.0], [4.0, 0.0]])
    figures = dict(zip(("kl", "cell_kl"), DocumentSums(["a", "b"]).ratios(above, below), strict=True))
    assert list(known_figures(figures)) == ["kl"]


def test_one_document_has_a_mean_and_no_interval() -> None:
    sums = DocumentSums(["a"] * 6)
    whole = [float(ABOVE[:, column].sum() / BELOW[:, column].sum()) for column in (0, 1)]
    assert sums.ratios(ABOVE, BELOW) == [{"mean": mean} for mean in whole]
    assert sums.ratio_differences((ABOVE, BELOW), (ABOVE, BELOW)) == [{"mean": 0.0}, {"mean": 0.0}]
    assert interval_text({"mean": 0.5}) == "0.5000"
    assert interval_text({"mean": 0.5, "low": 0.25, "high": 0.75}, "+.2f") == "+0.50 [+0.25, +0.75]"
