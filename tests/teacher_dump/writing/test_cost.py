"""Tests of the estimate of writing: arithmetic against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from teacher_dump.config import DumpConfig
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.writing.cost import estimate_with_writing, writing_plan_lines
from tests.teacher_dump.writing.helpers import save_prompts, writing_settings


def config(model: str, out: Path) -> DumpConfig:
    """Return the settings of a dump."""
    return DumpConfig(model=model, data="x", out=out, engine="vllm", filters=FilterSettings(decontaminate="none"))


def test_a_step_on_a_gpu_reads_weights_and_keys_and_values(tmp_path: Path) -> None:
    prompts = save_prompts(tmp_path / "p.jsonl", ["a" * 350, "b" * 350])
    settings = writing_settings(prompts, samples=1000, max_new_tokens=400)
    plan = estimate_with_writing(config("codellama-70b", tmp_path / "out"), settings, "8xH100")
    writing = plan["writing"]
    assert (writing["prompts"], writing["responses"], writing["tokens"]) == (2, 2000, 800_000)
    # 4 GPUs per engine; 100 tokens of prompt and half of 400; 8 key heads of 128 in 80 layers, 2 bytes.
    kv_bytes = 2 * 2 * 80 * 8 * 128 * 256 * 300
    step_s = (2 * 68_976_910_336 + kv_bytes) / 4 / (0.5 * 3.35e12) + 0.005
    assert writing["tokens_per_s"] == pytest.approx(2 * 256 / step_s, rel=1e-3)
    assert writing["range"][0]["tokens_per_s"] < writing["tokens_per_s"] < writing["range"][2]["tokens_per_s"]
    assert plan["tokens"] == 200 * 1000 + 800_000
    text = "\n".join(writing_plan_lines(plan))
    assert "2,000" in text
    assert "codellama-70b" in text
    assert text.index("writing") < text.index("recording")


def test_a_cpu_is_slower_than_prefill(tmp_path: Path) -> None:
    settings = writing_settings(save_prompts(tmp_path / "p.jsonl"), samples=10, max_new_tokens=100)
    plan = estimate_with_writing(config("smollm2-135m", tmp_path / "out"), settings, None)
    assert plan["writing"]["tokens"] == 7000
    assert plan["writing"]["seconds"] > plan["seconds"] * 7000 / plan["tokens"]


def test_prompts_on_the_hub_are_not_counted(tmp_path: Path) -> None:
    plan = estimate_with_writing(config("codellama-70b", tmp_path / "out"), writing_settings("org/name@rev"), None)
    assert plan["writing"]["prompts"] is None
    assert plan["tokens"] is None
    assert "not known" in "\n".join(writing_plan_lines(plan))
