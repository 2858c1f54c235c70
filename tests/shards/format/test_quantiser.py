"""Tests of the code tables and of the expected number of draws."""

from __future__ import annotations

import numpy as np

from shards.format.quantiser import expected_draws, head_table, tail_code, tail_table
from shards.format.schema import UNIT


def test_tables_are_even_steps_of_the_angle() -> None:
    assert tail_table()[0] == 0
    assert tail_table()[255] == UNIT
    assert head_table()[255] == UNIT // 2
    assert (np.diff(tail_table()) > 0).all()
    assert (np.diff(head_table()) > 0).all()
    assert np.array_equal(tail_code(tail_table() / UNIT), np.arange(256))


def test_expected_draws_are_the_ceiling_of_tail_over_threshold() -> None:
    expected = expected_draws(0.04, 2e-3)
    assert expected[255] == 25
    assert expected[0] == 0
    tail = tail_table() / UNIT
    assert (expected[tail < 2e-3] == 0).all()
    assert np.array_equal(expected[tail >= 2e-3], np.ceil(tail[tail >= 2e-3] / 0.04 - 1e-9))
