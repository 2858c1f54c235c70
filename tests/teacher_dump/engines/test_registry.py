"""The table of engines: selection, refusals, and an engine added with one line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from teacher_dump.config import DumpConfig
from teacher_dump.engines import registry
from teacher_dump.engines.base import EngineConfig
from teacher_dump.engines.registry import (
    ENGINES,
    EngineInfo,
    is_installed,
    require_parallelism,
    select_engine,
    start_engine,
)
from teacher_dump.errors import DumpError
from tests.teacher_dump.engines.test_blockwise_logits import engine_config


@pytest.fixture
def without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else find_spec(name))


def test_auto_is_the_first_installed_engine(without_vllm: None) -> None:
    assert list(ENGINES) == ["vllm", "transformers"]
    assert select_engine("auto") == "transformers"
    assert select_engine("transformers") == "transformers"


def test_an_absent_engine_is_refused_with_what_to_do(without_vllm: None) -> None:
    assert not is_installed("vllm")
    assert not is_installed("unknown")
    with pytest.raises(
        DumpError,
        match=r"^--engine vllm: vLLM is not installed; run `make setup` or pip install .*, or use --engine tr",
    ):
        select_engine("vllm")


def test_several_workers_are_refused_for_an_engine_in_one_process() -> None:
    require_parallelism("vllm", tensor_parallel_size=4, pipeline_parallel_size=2)
    require_parallelism("transformers", tensor_parallel_size=1, pipeline_parallel_size=1)
    with pytest.raises(DumpError, match=r"^--tensor-parallel-size 2: found the engine transformers, which runs"):
        require_parallelism("transformers", tensor_parallel_size=2, pipeline_parallel_size=1)
    with pytest.raises(DumpError, match=r"^--pipeline-parallel-size 3: found the engine transformers, which runs"):
        require_parallelism("transformers", tensor_parallel_size=1, pipeline_parallel_size=3)


class ToyEngine:
    """An engine that only keeps its settings."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config


def test_an_engine_is_added_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ENGINES, "numpy", EngineInfo(f"{__name__}:ToyEngine"))
    assert select_engine("numpy") == "numpy"
    engine = start_engine("numpy", engine_config(tmp_path, seed=7))
    assert isinstance(engine, ToyEngine)
    assert engine.config.seed == 7


def test_an_unknown_engine_is_refused_by_the_settings(tmp_path: Path) -> None:
    with pytest.raises(DumpError, match="engine: found 'jax', expected one of auto, vllm, transformers"):
        DumpConfig(model="smollm2-135m", out=tmp_path, data="stdlib", engine="jax")
