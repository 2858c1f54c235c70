"""Tests of the differences between records and the exact distribution."""

from __future__ import annotations

from typing import Any

import numpy as np

import shards
from teacher_dump.fidelity.differences import compare_with_exact
from teacher_dump.fidelity.views import RecordView
from tests.teacher_dump.fidelity.conftest import exact_row


def test_draws_are_at_the_places_of_their_offsets(made: Any) -> None:
    layout, window, exact, _, u = exact_row(made, 1)
    records = RecordView.from_chunk(shards.open(made.out)[0].row(1))
    next_ids = window.tokens[1:].astype(np.int64)
    right = compare_with_exact(records, exact, labels=next_ids, offsets=u, layout=layout)["draws"]
    wrong = compare_with_exact(records, exact, labels=next_ids, offsets=(u + 0.5) % 1, layout=layout)["draws"]
    assert (right.absolute == 0).all()
    assert (wrong.absolute > 0).mean() > 0.5
