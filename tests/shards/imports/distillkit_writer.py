"""Write DistillKit's compressed log-probabilities, from the description of its layout.

Bit by bit in plain Python with whole numbers, where the package uses numpy.

No counterpart: it is the other side of shards/imports/distillkit.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

DTYPES = {"float16": np.float16, "float32": np.float32, "float64": np.float64}


def pack(values: list[int], bits: int) -> bytes:
    """Pack integers from the most significant bit, with zero bits at the end."""
    joined = "".join(format(v, f"0{bits}b") for v in values)
    joined += "0" * (-len(joined) % 8)
    return int("1" + joined, 2).to_bytes(len(joined) // 8 + 1, "big")[1:]


def stored(values: np.ndarray, dtype: str) -> tuple[bytes, np.ndarray]:
    """Return numbers as bytes of a type, and what they are then."""
    if dtype != "bfloat16":
        rounded = values.astype(DTYPES[dtype])
        return rounded.tobytes(), rounded.astype(np.float64)
    raw = values.astype(np.float32).view(np.uint32)
    upper = ((raw + 0x7FFF + ((raw >> 16) & 1)) >> 16).astype(np.uint16)
    return upper.tobytes(), (upper.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def curve(terms: list[Any], size: int, *, normalize: bool) -> np.ndarray:
    points = [i / (size - 1) if normalize and size > 1 else float(i) for i in range(size)]
    functions = {"sqrt": math.sqrt, "exp": math.exp}
    return np.array([[functions[t](x) if isinstance(t, str) else x**t for t in terms] for x in points])


def compress_position(logprobs: np.ndarray, settings: dict[str, Any]) -> tuple[bytes, np.ndarray]:
    """Return the bytes of a position, and the log-probabilities that they stand for.

    Args:
        logprobs: [k] falling log-probabilities.
        settings: DistillKit's `logprob_compressor`.
    """
    values = logprobs.astype(np.float64)
    if settings.get("delta_encoding", True):
        values = np.diff(values, prepend=0.0)
    exact, rest = values[: settings["exact_k"]], values[settings["exact_k"] :]
    raw, exact = stored(exact, settings.get("exact_dtype", "float32"))
    approximate = np.zeros(len(rest))
    if len(rest) and (terms := settings.get("polynomial_terms")):
        matrix = curve(terms, len(rest), normalize=settings.get("normalize_t", False))
        coefficients = np.linalg.lstsq(matrix, rest, rcond=None)[0]
        more, coefficients = stored(coefficients, settings.get("term_dtype", "float32"))
        raw, approximate = raw + more, matrix @ coefficients
    first = 0
    for part in settings.get("residual_bins", []):
        bits, span = part["element_bits"], slice(first, first + part["num_elements"])
        first = span.stop
        residual = rest[span] - approximate[span]
        more, scale = stored(np.array([np.abs(residual).max() / 2 ** (bits - 1)]), part["scale_dtype"])
        low, high = (0, 1) if bits == 1 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        steps = [min(max(round(v / scale[0]), low), high) for v in residual]
        raw += more + pack([step - low for step in steps], bits)
        approximate[span] += scale[0] * np.array([2 * step - 1 if bits == 1 else step for step in steps])
    values = np.concatenate([exact, approximate])
    return raw, np.cumsum(values) if settings.get("delta_encoding", True) else values


def compressed_row(
    tokens: np.ndarray, ids: np.ndarray, logprobs: np.ndarray, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return a row of DistillKit's files."""
    bits = math.ceil(math.log2(settings["d"]))
    return {
        "input_ids": tokens,
        "compressed_logprobs": [list(compress_position(p, settings)[0]) for p in logprobs],
        "bytepacked_indices": [list(pack(i.tolist(), bits)) for i in ids],
    }
