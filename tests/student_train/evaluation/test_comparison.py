"""Tests of the record of an evaluation; `test_evaluate.py` has whole ones."""

from __future__ import annotations

import numpy as np

from student_train.evaluation.comparison import known_figures
from student_train.evaluation.intervals import DocumentSums


def test_a_measure_without_anything_to_divide_by_is_left_out() -> None:
    above, below = np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[4.0, 0.0], [4.0, 0.0]])
    figures = dict(zip(("kl", "cell_kl"), DocumentSums(["a", "b"]).ratios(above, below), strict=True))
    assert list(known_figures(figures)) == ["kl"]
