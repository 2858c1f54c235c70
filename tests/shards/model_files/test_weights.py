"""Tests of the digests and the checks of weight files."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from shards.errors import ShardError
from shards.model_files import weights


def write_bfloat16(path: Path, bits: list[int]) -> None:
    header = json.dumps({"w": {"dtype": "BF16", "shape": [len(bits)], "data_offsets": [0, 2 * len(bits)]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + np.array(bits, "<u2").tobytes())


@pytest.mark.parametrize(
    ("bits", "kind"),
    [(0x7F81, "NaN"), (0xFFC0, "NaN"), (0x7FFF, "NaN"), (0x7F80, "infinite"), (0xFF80, "infinite")],
)
def test_nan_and_infinity_of_bfloat16_are_found(bits: int, kind: str, tmp_path: Path) -> None:
    write_bfloat16(tmp_path / "model.safetensors", [0x3F80, 0x7F7F, 0x0001])
    weights.require_sound(tmp_path)
    write_bfloat16(tmp_path / "model.safetensors", [0x3F80, bits])
    with pytest.raises(ShardError, match=f"tensor w has 1 values that are {kind}"):
        weights.require_sound(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_infinity_of_every_type_is_counted_except_in_a_mask(dtype: str, tmp_path: Path) -> None:
    mask = np.array([0, -np.inf, -np.inf, 0], dtype)
    save_file({"mask": mask, "w": np.ones(3, dtype)}, tmp_path / "model.safetensors")
    weights.require_sound(tmp_path)
    save_file({"mask": mask, "w": mask + np.array(1, dtype)}, tmp_path / "model.safetensors")
    with pytest.raises(ShardError, match="tensor w has 2 values that are infinite"):
        weights.require_sound(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_nan_of_every_type_is_counted(dtype: str, tmp_path: Path) -> None:
    values = np.array([1, np.nan, -np.inf, np.nan], dtype)
    save_file({"i": np.arange(3), "w": values}, tmp_path / "model.safetensors")
    with pytest.raises(ShardError, match="tensor w has 2 values that are NaN"):
        weights.require_sound(tmp_path)


def test_a_file_cut_anywhere_is_found(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": np.ones((8, 8), np.float32), "v": np.ones(3, np.float32)}, path)
    raw = path.read_bytes()
    weights.require_sound(tmp_path)
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(ShardError, match="expected whole weights"):
            weights.require_sound(tmp_path)


def test_parts_of_weights_without_their_index_are_refused(tmp_path: Path) -> None:
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(ShardError, match=r"found parts of weights \(model-00001-of-00002.safetensors\), but no model"):
        weights.require_sound(tmp_path)
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "model.safetensors")  # leftovers beside whole weights
    weights.require_sound(tmp_path)


def test_the_digest_is_of_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"a")
    (tmp_path / "b.safetensors").write_bytes(b"b")
    a, b = (hashlib.sha256(x).hexdigest() for x in (b"a", b"b"))
    expected = hashlib.sha256(f"{a}  a.safetensors\n{b}  b.safetensors\n".encode()).hexdigest()
    assert weights.weights_sha256(tmp_path) == expected


def test_a_remembered_digest_is_forgotten_when_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_REMEMBERED_FROM", 1)
    monkeypatch.setenv("TEACHERLESS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "model.safetensors"
    save_file({"w": np.zeros(4, np.float32)}, path)
    first = weights.weights_sha256(folder)
    monkeypatch.setattr(weights, "file_sha256", lambda _: pytest.fail("hashed again"))
    assert weights.weights_sha256(folder) == first
    monkeypatch.undo()
    monkeypatch.setattr(weights, "_REMEMBERED_FROM", 1)
    monkeypatch.setenv("TEACHERLESS_CACHE", str(tmp_path / "cache"))
    about = path.stat()
    save_file({"w": np.array([0, 0, 0, np.nan], np.float32)}, path)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # the same size and time of change
    assert weights.weights_sha256(folder) != first
    with pytest.raises(ShardError, match="NaN"):
        weights.require_sound(folder)
