"""Tests of the noise of an engine: two runs of the same rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import shards
from teacher_dump.engines.hf import TransformersEngine
from teacher_dump.engines.settings import engine_config, record_layout
from teacher_dump.fidelity.noise import RepeatedRows
from teacher_dump.fidelity.rescore import check, sample_rows
from teacher_dump.model.teachers import resolve
from teacher_dump.run.dump import dump
from tests.teacher_dump.helpers import dump_config


class InBatches(TransformersEngine):
    """The engine as it runs on a GPU: many rows in a forward pass."""

    def capture(self, windows: Any) -> Any:
        yield from self._forward(list(windows))


def test_the_noise_floor_in_float64_is_tiny_and_below_a_change_of_type(made: Any) -> None:
    model = resolve(made.model)
    _, spec = record_layout(made, model)
    cache = shards.open(made.out)
    rows = sample_rows(cache, 6, 0)
    numbers, windows = [r.number for r in rows], [r.window for r in rows]
    double, single = (
        RepeatedRows.capture(InBatches(replace(engine_config(made, model, spec), dtype=dtype)), windows, spec)
        for dtype in ("float64", "float32")
    )
    other_types = RepeatedRows(windows=double.windows, alone=double.alone, together=single.alone)
    # Two float32 runs need not differ: on some processors a product does not depend on its batch. Two types do.
    floors = [runs.noise(numbers, cache.manifest.layout) for runs in (double, single, other_types)]
    assert all(f["draws"].agreeing == f["draws"].count > 0 for f in floors[:2])
    tiny, _, typed = ({name: t.to_dict(with_place=False) for name, t in f.items()} for f in floors)
    # Records are float32 whatever the model is, so a last bit may differ.
    assert all(t["max_steps"] < 0.01 for t in tiny.values())
    assert tiny["log Z"]["mean"] < typed["log Z"]["mean"]


@pytest.mark.slow
def test_noise_of_bfloat16_is_not_reported_as_damage(
    tiny_teacher: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dump_config(tiny_teacher, corpus_folder, tmp_path, dtype="bfloat16")
    with monkeypatch.context() as patched:  # recorded in other batches than it is checked in
        patched.setattr(TransformersEngine, "capture", InBatches.capture)
        dump(settings)
    found = check(settings, 8)
    assert found["sound"], found["problems"]
    assert (found["engine"]["dtype"], found["reference"]["dtype"]) == ("bfloat16", "float32")
    assert found["rounding"]["log Z"]["max_steps"] > 0.5
    assert found["stored"]["log Z"]["max_steps"] > found["stored"]["log Z"]["mean"] > 0
