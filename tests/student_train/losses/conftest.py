"""Rows of a made-up teacher, and a random student, for the tests of losses.

Shapes: P positions, V vocabulary size, H hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from shards.format.chunk import Chunk
from student_train.losses.divergences import target_kind
from student_train.losses.fused_linear import LossSpec
from student_train.losses.targets import Targets, TargetSpec, targets_of

H = 8


def make_row(tools: Any, *, seed: int, vocab: int, positions: int, sharpness: float) -> Chunk:
    rng = np.random.default_rng(seed)
    logits_PV = rng.normal(size=(positions, vocab)) * sharpness
    probs_PV = np.exp(logits_PV - logits_PV.max(1, keepdims=True))
    probs_PV /= probs_PV.sum(1, keepdims=True)
    tokens = rng.integers(0, vocab, size=positions + 1)
    return tools.chunk_of(tokens, tools.records(probs_PV, rng=rng), tools.info(seed))


def student(*, seed: int, vocab: int, positions: int, sharpness: float = 1.0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(positions + 3, H, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocab, H, generator=generator, dtype=torch.float64) * sharpness
    bias = torch.randn(vocab, generator=generator, dtype=torch.float64)
    index = torch.randperm(positions + 3, generator=generator)[:positions]
    return hidden, weight, bias, index


def targets_for(rows: list[Chunk], spec: LossSpec, vocab: int) -> Targets:
    kind = "none" if spec.divergence is None else target_kind("kd", spec.divergence)
    column = 0 if spec.temperature != 1.0 else None
    made = TargetSpec(vocab_size=vocab, target_kind=kind, temperature=spec.temperature, temperature_column=column)
    return targets_of(rows, made)
