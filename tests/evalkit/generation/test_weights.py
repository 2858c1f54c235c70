"""Tests of the checks of weights: a checkpoint that does not match its configuration is an error for every engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from evalkit.cli import main
from evalkit.generation import base
from evalkit.generation.engine import EngineChoice
from tests.evalkit.generation.fake_engine import FixedAnswerEngine

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

Weights = dict[str, "torch.Tensor"]


@pytest.fixture
def copy(tmp_path: Path, checkpoint: Path) -> Path:
    shutil.copytree(checkpoint, tmp_path / "ckpt")
    return tmp_path / "ckpt"


@pytest.fixture(params=["transformers", "vllm"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both engines, without starting one: what is wrong is found before."""
    name: str = request.param
    settings = base.EngineSettings(engine=name, batch_size=1, dtype="float32")
    monkeypatch.setattr("evalkit.generation.run.choose_settings", lambda *_, **__: EngineChoice(settings, "a test"))
    monkeypatch.setattr("evalkit.generation.run.load_engine", lambda *_: FixedAnswerEngine("    pass"))
    return name


def change(folder: Path, what: Callable[[Weights], object]) -> None:
    weights = safetensors.load_file(folder / "model.safetensors")
    what(weights)
    safetensors.save_file(weights, folder / "model.safetensors", {"format": "pt"})


def configure(folder: Path, **settings: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


def score(folder: Path) -> Result:
    return CliRunner().invoke(main, ["score", str(folder), "--limit", "1", "--no-html"], catch_exceptions=False)


def refused(folder: Path) -> str:
    done = score(folder)
    assert done.exit_code == 1, done.output
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"evalkit: {folder}: ")
    assert "LOAD REPORT" not in done.output
    assert not (folder / "evalkit" / "score.json").exists()
    return line


def test_missing_weights_are_named(copy: Path, engine: str):
    change(copy, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    assert "1 weight of the model is missing (model.layers.1.mlp.up_proj.weight)" in refused(copy)


def test_a_configuration_of_more_layers_than_there_are_is_refused(copy: Path, engine: str):
    configure(copy, num_hidden_layers=4)
    line = refused(copy)
    assert "18 weights of the model are missing (model.layers.2.input_layernorm.weight, " in line
    assert "config.json says num_hidden_layers 4, the weights may hold 2" in line


def test_surplus_layers_are_refused(copy: Path, engine: str):
    configure(copy, num_hidden_layers=1)
    assert (
        "config.json says num_hidden_layers 1, the weights hold 2 (model.layers.1.input_layernorm.weight, "
        in refused(copy)
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_nan_and_infinity_are_refused(copy: Path, engine: str, value: float, dtype: str):
    def spoil(weights: Weights) -> None:
        weights.update({name: tensor.to(getattr(torch, dtype)) for name, tensor in weights.items()})
        weights["model.layers.0.self_attn.q_proj.weight"][3, 5] = value

    change(copy, spoil)
    assert "model.layers.0.self_attn.q_proj.weight in model.safetensors holds NaN or infinity" in refused(copy)


def test_weights_of_another_shape_are_refused(copy: Path, engine: str):
    configure(copy, intermediate_size=96)
    assert "model.layers.0.mlp.down_proj.weight has the shape (128, 128), its configuration says (128, 96)" in refused(
        copy
    )


def test_an_adapter_that_was_not_merged_is_refused(copy: Path, engine: str):
    change(copy, lambda weights: weights.update({"model.layers.0.mlp.up_proj.lora_A.weight": torch.zeros(2, 128)}))
    assert "1 weight of an adapter is not merged (model.layers.0.mlp.up_proj.lora_A.weight)" in refused(copy)
    (copy / "adapter_config.json").write_text("{}")
    assert "holds an adapter (adapter_config.json), expected a whole model" in refused(copy)


def test_unused_weights_are_reported(copy: Path, engine: str):
    change(copy, lambda weights: weights.update({"value_head.weight": torch.zeros(2)}))
    done = score(copy)
    assert done.exit_code == 0, done.output
    assert "warning: 1 weight in the files not used by the model (value_head.weight)" in done.stderr


def split(folder: Path) -> None:
    weights = safetensors.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {f"model-{number:05}-of-00002.safetensors": list(weights)[number - 1 :: 2] for number in (1, 2)}
    for name, names in parts.items():
        safetensors.save_file({tensor: weights[tensor] for tensor in names}, folder / name, {"format": "pt"})
    placed = {tensor: name for name, names in parts.items() for tensor in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))


def as_bin(folder: Path) -> None:
    torch.save(safetensors.load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def tie(folder: Path) -> None:
    configure(folder, tie_word_embeddings=True)
    change(folder, lambda weights: weights.pop("lm_head.weight"))


def add_old_buffer(folder: Path) -> None:
    change(folder, lambda weights: weights.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(32)}))


@pytest.mark.parametrize("form", [split, as_bin, tie, add_old_buffer])
@pytest.mark.slow
def test_checkpoints_of_every_usual_form_are_accepted(copy: Path, engine: str, form: Callable[[Path], None]):
    form(copy)
    done = score(copy)
    assert done.exit_code == 0, done.output
    assert "warning: 1 weight" not in done.stderr


@pytest.mark.parametrize("form", [split, as_bin])
def test_nan_is_found_in_every_form(copy: Path, engine: str, form: Callable[[Path], None]):
    change(copy, lambda weights: weights["model.norm.weight"].fill_(float("nan")))
    form(copy)
    assert "model.norm.weight in " in refused(copy)


def test_missing_weights_are_found_even_if_every_sample_exists(copy: Path, engine: str):
    assert score(copy).exit_code == 0
    (copy / "evalkit" / "score.json").unlink()
    change(copy, lambda weights: weights.pop("model.norm.weight"))
    assert "model.norm.weight" in refused(copy)
