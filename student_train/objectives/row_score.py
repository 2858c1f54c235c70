"""Scores of one held-out row, and the measures that summarise them.

A `RowScore` is part of every checkpoint, so its field names are a file format.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NUM_BINS = 10
"""Number of equal ranges of confidence in `RowScore.bins`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowScore:
    """Sums over the positions of one held-out row."""

    document: str
    """sha256 of the document, hex."""
    window: int
    """Number of the window in its document."""
    tokens: int
    """Number of positions. Each predicts one token of text."""
    bytes: int
    """UTF-8 bytes of the row's text."""
    kl_sum: float
    """Sum of the estimated KL(teacher || student), nats; 0 where student and shards differ in tokenizer."""
    nll_sum: float
    """Sum of -log probability of the labels, nats."""
    top1_sum: int
    """Number of positions at which both models rank the same token first."""
    bins: list[list[float]]
    """Per range of confidence (the student's largest probability): positions, sum of confidence, correct ones."""
    chunk_kl_sum: float | None = None
    """Sum over aligned spans of the KL of "this span, then whitespace" or not; None with one tokenizer."""
    chunks: int | None = None
    """Number of aligned spans."""
    cell_kl_sum: float | None = None
    """Sum over shared boundaries of the KL on prefix cells."""
    boundaries: int | None = None
    """Number of shared boundaries; with two tokenizers `top1_sum` counts among these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A ratio of two sums over held-out rows."""

    name: str
    """Key in `run.json` and `held_out_curve.jsonl`."""
    numerator: str
    """Field of `RowScore`."""
    denominator: str
    """Field of `RowScore`."""
    unit: float = 1.0
    """The numerator is divided by this."""


BITS_PER_BYTE = Measure(name="bits_per_byte", numerator="nll_sum", denominator="bytes", unit=math.log(2.0))

LABELS = {
    "kl": "KL to the teacher",
    "chunk_kl": "KL of chunks",
    "cell_kl": "KL of cells",
    "bits_per_byte": "bits per byte",
    "top1_agreement": "top-1 agreement",
}
"""Names of measures for people."""


def confidence_bins(confidence_P: npt.NDArray[np.float64], hit_P: npt.NDArray[np.float64]) -> list[list[float]]:
    """Return `RowScore.bins` of positions with a confidence and a flag for a correct prediction."""
    # A broken model has confidence NaN. Training refuses it and names the rows; evaluation does not.
    bin_P = np.clip((np.nan_to_num(confidence_P) * NUM_BINS).astype(np.int64), 0, NUM_BINS - 1)
    sums = [np.bincount(bin_P, weights=w, minlength=NUM_BINS) for w in (np.ones_like(hit_P), confidence_P, hit_P)]
    return [[float(x) for x in row] for row in np.stack(sums, axis=1)]
