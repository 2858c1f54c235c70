"""A finished dump for the tests of the check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shards
from teacher_dump.engines.records import draw_offsets
from teacher_dump.engines.settings import engine_config, record_layout
from teacher_dump.fidelity.views import ExactDistribution
from teacher_dump.model.teachers import resolve
from teacher_dump.run.dump import dump
from teacher_dump.tasks.windowing import Window
from tests.teacher_dump.helpers import dump_config

ALL = 10_000
"""More rows than there are."""


@pytest.fixture(scope="module")
def made(tiny_teacher: Path, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return settings of a finished dump."""
    torch.set_num_threads(1)
    settings = dump_config(tiny_teacher, corpus_folder, tmp_path_factory.mktemp("made") / "cache", max_tokens=400)
    dump(settings)
    return settings


def exact_row(made: Any, number: int) -> tuple[Any, Window, ExactDistribution, torch.Tensor, np.ndarray]:
    """Return the layout, a row of the cache, its exact distribution, logits and offsets."""
    from transformers import AutoModelForCausalLM

    model = resolve(made.model)
    _, spec = record_layout(made, model)
    known = engine_config(made, model, spec)
    cache = shards.open(made.out)
    row = [c.row(r) for c in cache for r in range(len(c.rows))][number]
    window = Window(info=row.rows[0], tokens=np.array(row.tokens))
    net = AutoModelForCausalLM.from_pretrained(made.model, dtype=torch.float64)
    with torch.no_grad():
        logits = net(torch.from_numpy(window.tokens[None].astype(np.int64))).logits[0, :-1, : known.vocab_size]
    white = torch.from_numpy(known.whitespace_mask())
    exact = ExactDistribution.from_logits(logits, window.tokens[1:].astype(np.int64), spec.temperatures, white)
    u = draw_offsets(window.info.document, window.info.window, 0, len(logits))
    return cache.manifest.layout, window, exact, logits, u
