"""The vLLM engine outside vLLM: refused settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from teacher_dump.engines.vllm import VllmEngine, require_supported
from teacher_dump.errors import DumpError
from tests.teacher_dump.engines.test_blockwise_logits import engine_config
from tests.teacher_dump.helpers import run_small_dump


def test_layers_shared_out_without_gpus_are_refused_before_the_engine_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DumpError, match=r"^--pipeline-parallel-size 2: found no GPU"):
        VllmEngine(engine_config(tmp_path, pipeline_parallel_size=2))


@pytest.mark.parametrize("place", ["rope_parameters", "rope_scaling"])
def test_rotary_factors_that_depend_on_the_length_of_a_row_are_refused(tmp_path: Path, place: str) -> None:
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps({place: rope}))
    with pytest.raises(
        DumpError, match=r"found LongRoPE factors that change at 64 tokens.* --window-tokens of at most 64"
    ):
        VllmEngine(engine_config(tmp_path, window_tokens=65))
    require_supported(engine_config(tmp_path, window_tokens=64))


@pytest.mark.slow
def test_they_are_refused_before_anything_is_written(teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    factors = {"short_factor": [1.0] * 16, "long_factor": [2.0] * 16}
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "original_max_position_embeddings": 32, **factors}
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps({**config, "rope_parameters": rope}))
    result = run_small_dump(teacher, corpus_folder, tmp_path / "refused", "--engine", "vllm")
    assert result.exit_code == 1
    assert "found LongRoPE factors that change at 32 tokens" in result.output
    assert not (tmp_path / "refused").exists()
