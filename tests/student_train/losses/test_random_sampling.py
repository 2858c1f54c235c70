"""Tests of random-sampling KD on stored records."""

from __future__ import annotations

from typing import Any

import torch

from shards.format.chunk import Chunk
from student_train.losses.targets import Targets, TargetSpec, targets_of
from tests.student_train.losses.conftest import make_row


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
