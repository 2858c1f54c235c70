"""Students that cannot be trained: one line, before anything is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from student_train.cli import main
from student_train.errors import StudentError
from student_train.model.head import require_projection
from student_train.model.model_folder import load_model


def set_config(**values: Any) -> Any:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **values}))

    return change


def change_weights(change: Any) -> Any:
    def changed(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return changed


def cut(folder: Path) -> None:
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[: len(raw) // 2])


def lose_a_shard(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def put_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"][0] = float("nan")


def lose_a_tensor(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["model.layers.1.mlp.up_proj.weight"]


def shrink_embedding(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:200].clone()


def few_ids(folder: Path) -> None:
    change_weights(shrink_embedding)(folder)
    set_config(vocab_size=200)(folder)


def sampling(folder: Path) -> None:
    rules = json.loads((folder / "tokenizer.json").read_text())
    rules["model"]["dropout"] = 0.1
    (folder / "tokenizer.json").write_text(json.dumps(rules))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "the file is cut"),
        (lose_a_shard, "found no model-00002-of-00002.safetensors"),
        (change_weights(put_nan), "tensor model.norm.weight has 1 values that are NaN"),
        (change_weights(lose_a_tensor), "found no model.layers.1.mlp.up_proj.weight"),
        (change_weights(shrink_embedding), "does not load"),
        (few_ids, "ids beyond the model's 200"),
        (set_config(model_type="unheard_of"), "does not load"),
        (set_config(model_type="odd", auto_map={"AutoConfig": "odd.Odd"}), "does not load"),
        (set_config(quantization_config={"quant_method": "gptq", "bits": 4}), "found weights quantised by gptq"),
        (set_config(quantization_config={"quant_method": "bitsandbytes"}), "found weights quantised by bitsandbytes"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "does not load"),
        (set_config(num_attention_heads=0), "does not load (integer modulo by zero)"),
        (set_config(head_dim=0), "does not load (0.0 cannot be raised to a negative power)"),
        (set_config(vocab_size=0), "does not load (index 0 is out of bounds"),
        (set_config(pad_token_id=999), "does not load (Padding_idx must be within num_embeddings)"),
        (sampling, "the tokenizer samples (dropout 0.1"),
    ],
)
def test_a_student_that_cannot_be_trained_is_one_line(damage: Any, said: str, world: Any, tmp_path: Path) -> None:
    student = Path(shutil.copytree(world.teacher_dir, tmp_path / "student"))
    damage(student)
    arguments = ["--shards", world.shards, "--student", student, "--out", tmp_path / "out", "--max-steps", 2]
    arguments += ["--dtype", "float32", "--threads", 1]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 1, result.output
    line = result.output.strip().splitlines()[-1]
    assert line.startswith(f"student-train: student {student}: ")
    assert said in line
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [ZeroDivisionError, IndexError, AssertionError, OverflowError, NotImplementedError])
def test_whatever_transformers_raises_on_weights_is_one_line(
    error: type[Exception], world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    def fails(*_: Any, **__: Any) -> None:
        raise error("first line\nmore")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fails)
    with pytest.raises(StudentError, match=r"^student s: .* does not load \(first line\); expected") as caught:
        load_model("s", world.teacher_dir, seed=0)
    assert "\n" not in str(caught.value)


def test_an_empty_projection_is_refused(world: Any, tmp_path: Path) -> None:
    student = Path(shutil.copytree(world.teacher_dir, tmp_path / "student"))
    (student / "model.safetensors").unlink()
    set_config(hidden_size=0)(student)
    with pytest.raises(StudentError, match="without an output projection"):
        require_projection(load_model("s", student, seed=0))


def test_tensors_that_the_model_does_not_have_are_one_line(world: Any, tmp_path: Path) -> None:
    student = Path(shutil.copytree(world.teacher_dir, tmp_path / "student"))

    def add(tensors: dict[str, torch.Tensor]) -> None:
        for name in ("mlp.up_proj.weight", "mlp.down_proj.weight"):
            tensors[f"model.layers.4.{name}"] = tensors[f"model.layers.3.{name}"].clone()

    lines: list[str] = []
    load_model("s", student, seed=0, log=lines.append)
    assert lines == []
    change_weights(add)(student)
    load_model("s", student, seed=0, log=lines.append)
    assert lines == [
        f"student s: {student} has 2 tensors that a LlamaForCausalLM does not have, the first "
        "model.layers.4.mlp.down_proj.weight; they are left out of the student"
    ]
