"""Tests of the distortion of records and of the curve over thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import shards
from teacher_dump.engines.settings import engine_config, record_layout
from teacher_dump.fidelity.distortion import RecordsAtThreshold, distortions
from teacher_dump.fidelity.rescore import check
from teacher_dump.fidelity.views import RecordView
from teacher_dump.model.teachers import resolve
from tests.teacher_dump.fidelity.conftest import exact_row


def test_distortions_follow_their_definitions(made: Any) -> None:
    layout, window, exact, logits, u = exact_row(made, 1)
    model = resolve(made.model)
    known = engine_config(made, model, record_layout(made, model)[1])
    point = RecordsAtThreshold(layout.threshold, layout)
    point.add(window, exact, logits, u, torch.from_numpy(known.whitespace_mask()))
    records = RecordView.from_chunk(shards.open(made.out)[0].row(1))
    found = distortions(records, exact)
    for p in range(0, len(exact.p), 5):
        t = exact.p[p]
        part = records.slice(p, p + 1)
        estimate, kept = np.zeros_like(t), np.zeros(len(t), bool)
        estimate[part.head_ids], kept[part.head_ids] = part.head_probs, True
        for i in part.draw_ids:
            estimate[i] += part.tail[0] / len(part.draw_ids)
        tail = t[~kept].sum()
        even = np.where(kept, t, tail / (~kept).sum())
        head = np.where(kept, t, 0) / (1 - tail)
        assert found["error2"][p] == pytest.approx(((estimate - t) ** 2).sum(), rel=1e-9)
        assert found["kl_tail_even"][p] == pytest.approx((t * np.log(t / even)).sum(), rel=1e-6)
        assert found["kl_tail_dropped"][p] == pytest.approx((head[kept] * np.log(head[kept] / t[kept])).sum(), rel=1e-9)
        exact_masses = [*t[part.head_ids], tail]
        stored_masses = [*part.head_probs, part.tail[0]]
        assert found["kl_stored"][p] == pytest.approx(
            sum(a * np.log(a / b) for a, b in zip(exact_masses, stored_masses, strict=True))
        )
    assert point.sums.mean("kl_stored") < 1e-4


def test_the_curve_costs_bytes_and_saves_error(made: Any) -> None:
    curve = check(made, 8)["curve"]
    cache = shards.open(made.out)
    assert [p["threshold"] for p in curve] == sorted((p["threshold"] for p in curve), reverse=True)
    for name, rising in (("bytes_per_token", True), ("captured", True), ("rms", False)):
        values = [p[name] for p in curve]
        assert values == sorted(values, reverse=not rising), name
    own = next(p for p in curve if p["threshold"] == cache.manifest.layout.threshold)
    assert own["bytes_per_token"] == pytest.approx(cache.bytes_per_token, abs=1e-2)
