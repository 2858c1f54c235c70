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


def _floats(bits: Any) -> Any:
    return np.ascontiguousarray(bits).view(np.float32)
