"""Decode the compressed log-probabilities of DistillKit.

The layout is that of `distillkit/compression` in https://github.com/arcee-ai/DistillKit (commit a61c2e7), described
there under "Compression Deep-Dive" in README.md. This module was written from the layout, without its code.

A token has two byte strings. `bytepacked_indices` holds k ids of ceil(log2 d) bits each. `compressed_logprobs` holds
the k log-probabilities by falling value: first `exact_k` numbers; then, for the others, coefficients of a curve over
0, 1, 2, ...; then bins, each a scale and integers of some bits that are added to the next values of the curve. Bits
are packed from the most significant one. With `delta_encoding`, all values but the first are differences.

Shapes: P positions, k entries, m = k - exact_k values of the curve.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.errors import ShardError
from shards.format.chunk import Int64
from shards.format.schema import MAX_VOCAB

Float64 = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

CONFIG_NAME = "compression_config.yaml"
"""File that DistillKit writes beside its Parquet files."""
_DTYPES = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "float64": "<f8"}
_IGNORED = {"error_diffusion"}
"""Settings that change what is written, but not how it is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Residuals of the curve."""

    scale_dtype: str
    element_bits: int
    num_elements: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Compression:
    """DistillKit's `logprob_compressor`: the settings of a capture. Names are those of its file."""

    d: int
    """Number of ids of the vocabulary."""
    k: int
    """Entries of a position."""
    exact_k: int
    """Entries that are stored as numbers."""
    exact_dtype: str = "float32"
    polynomial_terms: tuple[int | str, ...] = ()
    """Exponents of the terms of the curve, or `sqrt` or `exp`."""
    term_dtype: str = "float32"
    residual_bins: tuple[Bin, ...] = ()
    delta_encoding: bool = True
    normalize_t: bool = False
    """Whether the curve runs from 0 to 1 instead of 0 to m - 1."""

    @property
    def id_bits(self) -> int:
        """Bits of an id: the logarithm is computed in float32, as the writer does."""
        return int(np.ceil(np.log2(np.float32(self.d))))

    @property
    def id_bytes(self) -> int:
        """Bytes of the ids of a position."""
        return -(-self.k * self.id_bits // 8)

    @property
    def logprob_bytes(self) -> int:
        """Bytes of the log-probabilities of a position."""
        bins = sum(_width(b.scale_dtype) - (-b.element_bits * b.num_elements // 8) for b in self.residual_bins)
        exact = self.exact_k * _width(self.exact_dtype)
        return exact + len(self.polynomial_terms) * _width(self.term_dtype) + bins

    def ids(self, packed: Bytes) -> Int64:
        """Return int64 [P, k] from bytes [P, `id_bytes`]."""
        return _unpack(packed, self.id_bits, self.k)

    def logprobs(self, packed: Bytes) -> Float64:
        """Return float64 [P, k] from bytes [P, `logprob_bytes`], computed without rounding to `exact_dtype`."""
        exact, rest = _take(packed, self.exact_dtype, self.exact_k)
        coefficients, rest = _take(rest, self.term_dtype, len(self.polynomial_terms))
        values = np.concatenate([exact, coefficients @ self._curve()], axis=1)
        start = self.exact_k
        for part in self.residual_bins:
            scale, rest = _take(rest, part.scale_dtype, 1)
            num_bytes = -(-part.element_bits * part.num_elements // 8)
            steps = _unpack(rest[:, :num_bytes], part.element_bits, part.num_elements)
            rest = rest[:, num_bytes:]
            # One bit is a sign; more bits are an offset from the smallest integer.
            signed = 2 * steps - 1 if part.element_bits == 1 else steps - 2 ** (part.element_bits - 1)
            values[:, start : start + part.num_elements] += signed * scale
            start += part.num_elements
        return np.cumsum(values, axis=1) if self.delta_encoding else values

    def _curve(self) -> Float64:
        """Return float64 [terms, m]: the terms of the curve at its points."""
        size = self.k - self.exact_k
        points = np.linspace(0, 1, size) if self.normalize_t else np.arange(size, dtype=np.float64)
        functions = {"sqrt": np.sqrt, "exp": np.exp}
        rows = [functions[t](points) if isinstance(t, str) else points**t for t in self.polynomial_terms]
        return np.array(rows, np.float64).reshape(len(rows), size)


def load_compression(file: Path) -> Compression:
    """Read a file of settings: YAML as DistillKit writes it, or JSON.

    Raises:
        ShardError: If it cannot be read, or holds other settings.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ShardError(
            f"{file}: cannot read ({error}); expected the settings of the capture, which data sets without them name "
            "in their description: write them to a file and name it with --compression"
        ) from None
    data = _parse(file, text)
    data = data.get("logprob_compressor", data) if isinstance(data, dict) else data
    if not isinstance(data, dict):
        raise ShardError(
            f"{file}: found {type(data).__name__}, expected the settings of DistillKit's logprob_compressor"
        )
    return _compression(data, str(file))


def _parse(file: Path, text: str) -> Any:
    if file.suffix == ".json":
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ShardError(f"{file}: found no JSON ({error}); fetch it again") from None
    try:
        import yaml
    except ImportError:
        raise ShardError(
            f"{file}: reading YAML needs PyYAML: run pip install pyyaml, or write the settings as JSON and name that "
            "file with --compression"
        ) from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ShardError(f"{file}: found no YAML ({str(error).splitlines()[0]}); fetch it again") from None


def _compression(data: Mapping[str, Any], where: str) -> Compression:
    try:
        settings = {name: value for name, value in data.items() if name not in _IGNORED}
        settings["polynomial_terms"] = tuple(settings.get("polynomial_terms") or ())
        settings["residual_bins"] = tuple(Bin(**part) for part in settings.get("residual_bins") or ())
        compression = Compression(**settings)
        problem = _problem(compression)
    except (TypeError, ValueError, AttributeError) as error:
        problem = str(error)
    if problem:
        raise ShardError(f"{where}: {problem}; expected the settings of DistillKit's logprob_compressor")
    return compression


def _problem(c: Compression) -> str:
    """Return what makes settings impossible, "" if nothing does."""
    numbers = [c.d, c.k, c.exact_k, *(n for b in c.residual_bins for n in (b.element_bits, b.num_elements))]
    if any(type(n) is not int for n in numbers) or not (
        1 < c.d <= MAX_VOCAB and 0 < c.k <= c.d and 0 <= c.exact_k <= c.k
    ):
        return f"found d {c.d}, k {c.k} and exact_k {c.exact_k}"
    size = c.k - c.exact_k
    if unknown := {c.exact_dtype, c.term_dtype, *(b.scale_dtype for b in c.residual_bins)} - _DTYPES.keys():
        return f"found the type {', '.join(sorted(map(str, unknown)))}"
    if any(not (1 <= b.element_bits <= 32 and b.num_elements > 0) for b in c.residual_bins):
        return "found bins of other than 1 to 32 bits"
    if sum(b.num_elements for b in c.residual_bins) > size:
        return f"found bins for more than the {size} values that are not exact"
    if any(t not in ("sqrt", "exp") and not (type(t) is int and 0 <= t <= 16) for t in c.polynomial_terms):
        return f"found the terms {list(c.polynomial_terms)}"
    if size and not (c.polynomial_terms or c.residual_bins):
        return f"found {size} values that are not exact, and neither terms nor bins"
    return ""


def _width(dtype: str) -> int:
    return np.dtype(_DTYPES[dtype]).itemsize


def _take(raw: Bytes, dtype: str, count: int) -> tuple[Float64, Bytes]:
    """Return float64 [P, count] from the first bytes of each position, and the bytes after them."""
    num_bytes = count * _width(dtype)
    values = np.ascontiguousarray(raw[:, :num_bytes]).view(_DTYPES[dtype]).reshape(len(raw), count)
    if dtype == "bfloat16":  # the upper half of a float32
        values = (values.astype("<u4") << 16).view("<f4")
    return values.astype(np.float64), raw[:, num_bytes:]


def _unpack(raw: Bytes, bits: int, count: int) -> Int64:
    """Return int64 [P, count] from integers of `bits` bits, packed from the most significant bit."""
    flat = np.unpackbits(raw, axis=1, count=bits * count).reshape(len(raw), count, bits)
    weights = np.left_shift(np.int64(1), np.arange(bits - 1, -1, -1, dtype=np.int64))
    values: Int64 = flat @ weights
    return values
