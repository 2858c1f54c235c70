"""Checks of a loaded engine: an honest one passes, and each kind of wrong one is refused with the difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers as hf

from teacher_dump.engines import probe
from teacher_dump.engines.base import EngineConfig
from teacher_dump.engines.blockwise_logits import BlockLogits, BlockwiseLogits
from teacher_dump.engines.hf import TransformersEngine
from teacher_dump.engines.records import Packed
from teacher_dump.errors import DumpError
from teacher_dump.tasks.windowing import Window
from tests.teacher_dump.engines.test_blockwise_logits import GQA, engine_config, saved

Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Function of logits [P, V] and the token ids of their row that returns other logits."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(hf.Gemma2Config(**GQA, final_logit_softcapping=2.0), tmp_path_factory.mktemp("soft-capped"))


def wrong(folder: Path, monkeypatch: pytest.MonkeyPatch, change: Change, dtype: str = "float32") -> TransformersEngine:
    """Return an engine whose logits are changed after its own checks."""
    engine = TransformersEngine(engine_config(folder, dtype=dtype))
    forward = BlockwiseLogits.forward

    def changed(self: BlockwiseLogits, ids_BT: torch.Tensor) -> BlockLogits:
        block_logits = forward(self, ids_BT)
        return lambda row, start, stop: change(block_logits(row, start, stop), ids_BT[row])

    monkeypatch.setattr(BlockwiseLogits, "forward", changed)
    return engine


class Remembering:
    """An engine that counts its windows."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.engine, self.lengths = engine, []  # type: tuple[TransformersEngine, list[int]]

    def capture(self, windows: Sequence[Window]) -> Iterator[Packed]:
        self.lengths += [len(window.tokens) for window in windows]
        return self.engine.capture(windows)

    def close(self) -> None:
        self.engine.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_honest_engine_passes_with_three_short_prompts(folder: Path, dtype: str) -> None:
    config = engine_config(folder, dtype=dtype)
    engine = Remembering(TransformersEngine(config))
    probe.EngineProbe(config).check(engine)
    assert engine.lengths == [48, 48, 48]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("scale", [0.9, 1.1])
def test_a_logit_scale_is_refused_with_the_difference(
    folder: Path, dtype: str, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = wrong(folder, monkeypatch, lambda logits_PV, ids_T: scale * logits_PV, dtype)
    with pytest.raises(
        DumpError, match=r"differ from the plain forward .*, by 0\.\d+ standard deviations of the label"
    ) as caught:
        probe.EngineProbe(engine_config(folder, dtype=dtype)).check(engine)
    assert "\n" not in str(caught.value)


def test_records_that_change_with_later_tokens_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = wrong(folder, monkeypatch, lambda logits_PV, ids_T: logits_PV * (1 + 0.01 * (ids_T[-1] % 7)))
    with pytest.raises(DumpError, match=r"the tokens from 24 on change the records before them"):
        probe.EngineProbe(engine_config(folder)).check(engine)


def test_records_that_differ_from_run_to_run_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.Generator().manual_seed(0)
    engine = wrong(
        folder, monkeypatch, lambda logits_PV, ids_T: logits_PV + 0.1 * torch.randn(logits_PV.shape, generator=noise)
    )
    with pytest.raises(DumpError, match="two runs of one prompt differ"):
        probe.EngineProbe(engine_config(folder)).check(engine)


@pytest.mark.parametrize("why", ["large", "quantised"])
def test_a_large_or_quantised_teacher_is_not_loaded_again(
    why: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = wrong(folder, monkeypatch, lambda logits_PV, ids_T: 0.9 * logits_PV)
    monkeypatch.setattr(probe, "load", lambda *_, **__: pytest.fail("the teacher was loaded again"))
    config: EngineConfig = engine_config(folder)
    if why == "large":
        monkeypatch.setattr(probe, "COMPARED_BYTES", 1000)
    else:
        config = replace(config, quantization="awq")
    probe.EngineProbe(config).check(engine)
