"""Tests of the transformers engine on windows with a context: no logits for it, and the same records after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from teacher_dump.engines.blockwise_logits import BlockwiseLogits
from teacher_dump.engines.hf import TransformersEngine
from tests.teacher_dump.engines.test_blockwise_logits import CAUSAL, GQA, SPEC, engine_config, saved, windows


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return the list of the blocks of positions that logits are computed for."""
    blocks: list[tuple[int, int]] = []
    forward = BlockwiseLogits.forward

    def recording(self: BlockwiseLogits, ids_BT: torch.Tensor) -> Callable[[int, int, int], torch.Tensor]:
        block_logits = forward(self, ids_BT)

        def block(row: int, start: int, stop: int) -> torch.Tensor:
            blocks.append((start, stop))
            return block_logits(row, start, stop)

        return block

    monkeypatch.setattr(BlockwiseLogits, "forward", recording)
    return blocks


@pytest.mark.parametrize("name", ["plain", "a transform"])
@pytest.mark.parametrize("context", [1, 2, 30, 79])
def test_a_context_needs_no_logits_and_changes_no_record_after_it(
    name: str, context: int, asked: list[tuple[int, int]], tmp_path: Path
) -> None:
    engine = TransformersEngine(engine_config(saved(CAUSAL[name](), tmp_path)))
    (window,) = windows(80)
    (whole,) = engine.capture([window])
    asked.clear()
    (response,) = engine.capture([replace(window, info=replace(window.info, context=context))])
    assert asked == [(context - 1, 79)]
    assert len(response) == 80 - context
    heads, probs, _, scalars = SPEC.column_slices  # the draws begin anew at the first position
    assert np.array_equal(whole[context - 1 :, heads], response[:, heads])
    for columns in (probs, scalars):
        assert _floats(whole[context - 1 :, columns]) == pytest.approx(_floats(response[:, columns]), abs=1e-4)


def test_rows_with_contexts_of_other_lengths_share_a_batch(tmp_path: Path) -> None:
    engine = TransformersEngine(engine_config(saved(hf.LlamaConfig(**GQA), tmp_path)))
    rows = [
        replace(window, info=replace(window.info, context=context))
        for window, context in zip(windows(80, 20, 50), (70, 3, 49), strict=True)
    ]
    alone = [next(engine.capture([row])) for row in rows]
    for one, together in zip(alone, engine._forward(rows), strict=True):
        assert one.shape == together.shape
        assert np.array_equal(one[:, SPEC.column_slices[0]], together[:, SPEC.column_slices[0]])


ROPE: dict[str, Any] = {"rope_theta": 10_000.0, "short_factor": [1.0] * 8, "long_factor": [3.0] * 8, "factor": 4.0}
LENGTHS: dict[str, Callable[[], Any]] = {
    "longrope": lambda: hf.Phi3Config(
        **{**GQA, "max_position_embeddings": 512},
        original_max_position_embeddings=128,
        rope_parameters={**ROPE, "rope_type": "longrope"},
    ),
    "dynamic": lambda: hf.LlamaConfig(
        **GQA, rope_parameters={"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
    ),
}
"""Models whose rotary factors change at 128 tokens, by the type of RoPE."""


@pytest.mark.parametrize("rope_type", LENGTHS)
def test_the_length_of_another_row_changes_no_record(
    rope_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teacher_dump.engines.hf.BATCH_TOKENS", {"cpu": 16_384, "cuda": 16_384})  # as on a GPU
    config = engine_config(saved(LENGTHS[rope_type](), tmp_path), window_tokens=256)
    rows = windows(60, 250, 200, 60)
    engine = TransformersEngine(config)
    for row, packed in zip(rows, engine.capture(rows), strict=True):
        assert np.array_equal(packed, next(TransformersEngine(config).capture([row])))


@pytest.mark.parametrize("rope_type", LENGTHS)
def test_rows_share_a_batch_where_no_window_reaches_the_change_of_factors(rope_type: str, tmp_path: Path) -> None:
    folder = saved(LENGTHS[rope_type](), tmp_path)
    for window_tokens, is_ragged in ((128, True), (129, False)):
        engine = TransformersEngine(engine_config(folder, window_tokens=window_tokens))
        assert engine._logits.is_ragged == is_ragged


def _floats(bits: Any) -> Any:
    return np.ascontiguousarray(bits).view(np.float32)
