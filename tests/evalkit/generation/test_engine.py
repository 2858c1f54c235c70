"""Tests of the choice of engine and dtype, and of what is announced."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from evalkit.errors import EvalError
from evalkit.generation import engine
from shards.runtime import machine
from tests.evalkit.commands import call

pytest.importorskip("transformers")


def test_auto_takes_transformers_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings, why = engine.choose_settings("auto", batch_size=None, deterministic=False)
    assert (settings.engine, why) == ("transformers", "no GPU")


@pytest.mark.parametrize(("features", "dtype"), [({"avx2", "avx512_bf16"}, "bfloat16"), ({"avx2"}, "float32")])
def test_auto_dtype_is_what_the_machine_computes_in(features: set, dtype: str, monkeypatch: pytest.MonkeyPatch):
    import torch

    processor = dataclasses.replace(machine.processor(), features=frozenset(features), architecture="x86_64")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "processor", lambda: processor)
    for variable in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(variable, raising=False)
    assert engine.choose_settings("auto", batch_size=None, deterministic=False)[0].dtype == dtype
    assert engine.choose_settings("auto", batch_size=None, deterministic=True)[0].dtype == "float32"


def test_the_announcement_names_the_dtype_its_reason_and_any_slowdown(monkeypatch: pytest.MonkeyPatch):
    import torch

    processor = dataclasses.replace(machine.processor(), features=frozenset({"avx2"}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "processor", lambda: processor)

    def announced(asked: str) -> list[str]:
        settings, why = engine.choose_settings("auto", batch_size=None, deterministic=False, dtype=asked)
        return engine.announcement(settings, why, asked)

    (line,) = announced("auto")
    assert line.startswith("engine transformers (no GPU), float32 (auto: the processor does not compute in bfloat16)")
    slow, line = announced("bfloat16")
    assert "times as long as in float32 (measured now)" in slow
    assert "bfloat16 (as given" in line
    record = engine.hardware("auto", deterministic=False)
    assert record == {
        "dtype_why": "auto: the processor does not compute in bfloat16",
        "threads": 1,
        "machine": machine.describe(torch, cpu=processor),
    }


def test_another_engine_is_a_module_and_a_row_of_the_table(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    entry = engine.EngineEntry(
        factory="tests.evalkit.generation.fake_engine:ReturnEngine",
        package="pytest",
        install="install pytest",
        cpu_batch_size=2,
        gpu_batch_size=4,
    )
    monkeypatch.setitem(engine.ENGINES, "fixed", entry)
    done = call("score", checkpoint, "--engine", "fixed", "--limit", 1, "--no-html", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "score.json").read_text())
    assert result["generation"]["engine"] == "fixed"
    (sample,) = (json.loads(line) for line in (tmp_path / "score.samples.jsonl").read_text().splitlines())
    assert sample["completion"] == "    return None\n"


@pytest.mark.parametrize(
    ("layers", "key_heads", "head_size", "dtype", "size"),
    [
        (30, 3, 64, "bfloat16", 64),  # SmolLM2-135M: 23 KB a token
        (22, 4, 64, "float32", 32),  # TinyLlama: 45 KB
        (32, 32, 80, "bfloat16", 4),  # Phi-2: 328 KB
        (80, 64, 128, "float32", 4),
    ],
)
def test_the_default_batch_on_a_cpu_fits_its_memory(
    layers: int, key_heads: int, head_size: int, dtype: str, size: int, monkeypatch: pytest.MonkeyPatch
):
    import torch

    config = SimpleNamespace(
        num_hidden_layers=layers,
        num_attention_heads=64,
        num_key_value_heads=key_heads,
        head_dim=head_size,
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def chosen(batch_size: int | None = None, *, deterministic: bool = False, config: object = config) -> int:
        return engine.choose_settings(
            "transformers", batch_size=batch_size, deterministic=deterministic, dtype=dtype, config=config
        ).settings.batch_size

    assert chosen() == size
    assert chosen(batch_size=5) == 5
    assert chosen(deterministic=True) == chosen(config=SimpleNamespace()) == 16


def test_an_engine_whose_package_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    entry = dataclasses.replace(engine.ENGINES["vllm"], package="no_such_package")
    monkeypatch.setitem(engine.ENGINES, "vllm", entry)
    with pytest.raises(EvalError, match="engine vllm is not installed; install vllm"):
        engine.choose_settings("vllm", batch_size=None, deterministic=False)
