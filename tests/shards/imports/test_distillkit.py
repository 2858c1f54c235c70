"""Tests of the decoder of DistillKit's compression, against a writer made from the description."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.errors import ShardError
from shards.imports.distillkit import load_compression
from tests.shards.imports.conftest import make_top_k
from tests.shards.imports.distillkit_writer import compress_position, pack

RECOMMENDED = {
    "k": 32,
    "exact_k": 16,
    "exact_dtype": "bfloat16",
    "polynomial_terms": [0, 1, 2, 3, 4, "sqrt"],
    "term_dtype": "float32",
    "residual_bins": [],
    "delta_encoding": False,
    "error_diffusion": False,
}
"""The settings that DistillKit's README recommends, for fewer entries."""
BYTE_BIN = {"scale_dtype": "float16", "element_bits": 8, "num_elements": 16}
SMALL_BINS = [
    {"scale_dtype": "float32", "element_bits": 11, "num_elements": 5},
    {"scale_dtype": "bfloat16", "element_bits": 3, "num_elements": 3},
    {"scale_dtype": "float64", "element_bits": 1, "num_elements": 4},
]
CASES: dict[str, dict[str, Any]] = {
    "exact": {"k": 8, "exact_k": 8, "residual_bins": [], "delta_encoding": False},
    "exact float64": {"k": 8, "exact_k": 8, "exact_dtype": "float64", "residual_bins": []},
    "recommended": RECOMMENDED,
    "differences": {**RECOMMENDED, "delta_encoding": True, "exact_dtype": "float32"},
    "curve from 0 to 1": {**RECOMMENDED, "normalize_t": True, "term_dtype": "float16"},
    "8-bit residuals": {**RECOMMENDED, "polynomial_terms": [0, 1], "residual_bins": [BYTE_BIN]},
    "residuals alone": {**RECOMMENDED, "polynomial_terms": None, "residual_bins": [BYTE_BIN]},
    "three bins and a gap": {**RECOMMENDED, "residual_bins": SMALL_BINS, "exact_k": 0},
    "an exponential": {**RECOMMENDED, "k": 20, "polynomial_terms": [0, "exp"]},
}


def load(folder: Path, settings: dict[str, Any]) -> Any:
    (folder / "settings.json").write_text(json.dumps(settings))
    return load_compression(folder / "settings.json")


@pytest.mark.parametrize("case", CASES)
def test_what_the_writer_stores_is_read(case: str, tmp_path: Path) -> None:
    settings = {"d": 300, **CASES[case]}
    compression = load(tmp_path, settings)
    row = make_top_k(np.random.default_rng(0), length=30, k=settings["k"])
    written = [compress_position(p, settings) for p in row.logprobs]
    packed = np.array([list(raw) for raw, _ in written], np.uint8)
    assert packed.shape[1] == compression.logprob_bytes
    np.testing.assert_allclose(compression.logprobs(packed), [values for _, values in written], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(compression.logprobs(packed), row.logprobs, atol=0.8)


@pytest.mark.parametrize("size", [2, 3, 300, 256, 257, 65_536, 65_537, 151_936])
def test_ids_of_any_width_are_read(size: int, tmp_path: Path) -> None:
    k = min(size, 7)
    compression = load(tmp_path, {"d": size, "k": k, "exact_k": k, "residual_bins": []})
    ids = np.random.default_rng(0).integers(0, size, (5, k))
    packed = np.array([list(pack(i.tolist(), (size - 1).bit_length())) for i in ids], np.uint8)
    assert packed.shape[1] == compression.id_bytes
    assert compression.ids(packed).tolist() == ids.tolist()


def test_bytes_by_hand(tmp_path: Path) -> None:
    """Ids 1, 2, 3 of 3 bits are 001 010 011 and padding; one bit of a bin stands for minus or plus its scale."""
    one_bit = {"scale_dtype": "float16", "element_bits": 1, "num_elements": 2}
    settings = {"d": 8, "k": 3, "exact_k": 1, "exact_dtype": "bfloat16", "delta_encoding": False}
    compression = load(tmp_path, {**settings, "residual_bins": [one_bit]})
    assert compression.ids(np.array([[0b00101001, 0b10000000]], np.uint8)).tolist() == [[1, 2, 3]]
    # bfloat16 -1.5 is 0xBFC0, float16 0.5 is 0x3800, both little-endian.
    packed = np.array([[0xC0, 0xBF, 0x00, 0x38, 0b01000000]], np.uint8)
    assert compression.logprobs(packed).tolist() == [[-1.5, -0.5, 0.5]]


def test_the_file_that_distillkit_writes_is_read(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    file = tmp_path / "compression_config.yaml"
    file.write_text(
        "d: 300\nk: 4\nexact_k: 2\nexact_dtype: bfloat16\npolynomial_terms:\n- 0\n- sqrt\nresidual_bins: []\n"
    )
    assert load_compression(file).polynomial_terms == (0, "sqrt")
    file.write_text("logprob_compressor: {d: 300, k: 4, exact_k: 4, residual_bins: []}\n")  # of a training file
    assert load_compression(file).k == 4


SOUND = {"d": 300, "k": 4, "exact_k": 2, "polynomial_terms": [0], "residual_bins": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exact_k": None}, "found d 300, k 4 and exact_k None"),
        ({"exact_k": 5}, "found d 300, k 4 and exact_k 5"),
        ({"d": 9e9}, "found d 9000000000.0"),
        ({"exact_dtype": "int8"}, "found the type int8"),
        ({"exact_dtype": ["x"]}, "unhashable type"),
        ({"polynomial_terms": []}, "found 2 values that are not exact, and neither terms nor bins"),
        ({"polynomial_terms": ["log"]}, "found the terms ['log']"),
        ({"polynomial_terms": 3}, "'int' object is not iterable"),
        ({"wrong": 3}, "unexpected keyword argument 'wrong'"),
        ({"residual_bins": [{**BYTE_BIN, "element_bits": 99}]}, "bins of other than 1 to 32 bits"),
        ({"residual_bins": [BYTE_BIN]}, "bins for more than the 2 values"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"settings\.json: .*expected the settings of DistillKit's") as refused:
        load(tmp_path, {**SOUND, **change})
    assert message in str(refused.value)


@pytest.mark.parametrize(("text", "message"), [("[]", "found list, expected the settings"), ("{", "found no JSON")])
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ShardError, match=message):
        load_compression(tmp_path / "settings.json")


def test_without_yaml_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "compression_config.yaml").write_text("d: 1\n")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ShardError, match="reading YAML needs PyYAML: run pip install pyyaml, or write the settings as"):
        load_compression(tmp_path / "compression_config.yaml")


def test_missing_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"cannot read .* name it with --compression"):
        load_compression(tmp_path / "compression_config.yaml")
