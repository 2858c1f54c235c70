"""Tests of the digests of weights: what changes them, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from shards.errors import ShardError
from student_train.outputs.weight_digest import exported_sha256, parameters_sha256

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1.5, dtype=torch.bfloat16)}


def exported(folder: Path, *files: dict[str, torch.Tensor]) -> str:
    folder.mkdir()
    for number, tensors in enumerate(files):
        save_file(tensors, folder / f"model-{number}.safetensors", metadata={"number": str(number)})
    return exported_sha256(folder)


def test_the_layout_of_the_files_does_not_count(tmp_path: Path) -> None:
    one = exported(tmp_path / "one", TENSORS)
    parts = [{name: tensor} for name, tensor in reversed(TENSORS.items())]
    assert exported(tmp_path / "two", *parts) == one


@pytest.mark.parametrize(
    "changed",
    [
        {"a.weight": TENSORS["a.weight"].nextafter(torch.tensor(9.0))},
        {"a.weight": TENSORS["a.weight"].reshape(3, 2)},
        {"b": torch.tensor(1.5, dtype=torch.float16)},
        {"c": torch.zeros(0)},
    ],
)
def test_a_bit_a_shape_a_type_and_a_name_count(changed: dict[str, torch.Tensor], tmp_path: Path) -> None:
    assert exported(tmp_path / "one", TENSORS) != exported(tmp_path / "two", {**TENSORS, **changed})


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    exported(tmp_path / "one", TENSORS)
    file = tmp_path / "one" / "model-0.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ShardError, match="the file is cut"):
        exported_sha256(tmp_path / "one")


def test_parameters_that_do_not_train_do_not_count() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    model[0].bias.requires_grad_(False)
    before = parameters_sha256(model)
    with torch.no_grad():
        model[0].bias += 1
    assert parameters_sha256(model) == before
    with torch.no_grad():
        model[1].bias.copy_(model[1].bias.nextafter(torch.tensor([9.0])))
    assert parameters_sha256(model) != before
