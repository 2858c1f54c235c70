"""Distortion of the records: what thresholding, quantisation and draws change, at a cache's threshold and at others.

Each distortion is measured alone: quantisation against records that were not rounded, truncation with exact masses.
The curve over thresholds supports the choice of c: bytes against captured mass and against the error of the estimate.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from shards.format.batch import Row, build_batch, decode_chunk
from shards.format.schema import UNIT, Layout, file_schema
from shards.write import ZSTD_LEVEL
from teacher_dump.engines.records import RecordSpec, to_row
from teacher_dump.engines.sparsify import sparsify
from teacher_dump.fidelity.views import ExactDistribution, Float64, RecordView
from teacher_dump.tasks.windowing import Window

CURVE_TOKENS = 4096
"""Tokens, in whole rows, that the curve is measured on: each needs a reduction per threshold."""
_FACTORS = (4.0, 2.0, 1.0, 0.5, 0.25)
"""Thresholds of the curve, in units of the cache's own."""
_CURVE_MIN, _CURVE_MAX = 0.004, 0.5
_JOINED_ARRAYS = (
    "head_count",
    "head_ids",
    "head_probs",
    "draw_count",
    "draw_ids",
    "label_logp",
    "whitespace_logp",
    "entropy",
    "log_z",
)


def distortions(records: RecordView, exact: ExactDistribution) -> dict[str, Float64]:
    """Return the distortion of records at each position, float64 [P]; divergences in nats.

    Returns:
        By name:

        - captured: mass of the head.
        - error2, norm2: squared distance of the estimate (head and draws, each draw tau / M) to the distribution, and
          the squared norm of the distribution. The gradient of a loss with respect to a student's logits has an error
          of the same distance.
        - kl_stored: KL(exact head and tail || stored ones), the tail as one outcome. A stored tail of 0 counts as half
          a unit, 2^-25.
        - kl_tail_dropped: KL(head renormalised || teacher).
        - kl_tail_even, kl_tail_even_undrawn: KL(teacher || tail spread evenly over its ids), at every position and only
          at positions without draws. With draws, the expected estimate is the teacher itself.
        - draws_off: cross-entropy of the teacher estimated from the draws, minus the one from the exact tail; NaN
          without draws. An unbiased estimate has mean 0.
    """
    num, width = exact.p.shape
    owner, drawn = records.head_owner, records.draw_owner
    p = exact.p[owner, records.head_ids]
    tail = np.clip(1 - np.bincount(owner, p, num), 0, 1)
    stored = np.bincount(owner, p * np.log(np.maximum(p, 1e-300) / np.maximum(records.head_probs, 0.5 / UNIT)), num)
    stored = stored + tail * np.log(np.maximum(tail, 1e-300) / np.maximum(records.tail, 0.5 / UNIT))

    # Entropy of what is outside the head, times its mass: -sum t log(t / tau).
    surprise = -exact.log_p
    outside = exact.entropy - np.bincount(owner, p * surprise[owner, records.head_ids], num)
    within = outside + tail * np.log(np.maximum(tail, 1e-300))
    even = tail * np.log(np.maximum(width - np.diff(records.head_starts), 1)) - within

    counts = np.diff(records.draw_starts)
    weight = records.tail / np.maximum(counts, 1)
    # Draws of one id add up first: the square of a sum is not the sum of the squares.
    keys, index = np.unique(drawn * width + records.draw_ids, return_inverse=True)
    mass = np.bincount(index, weight[drawn], len(keys)) if len(keys) else np.zeros(0)
    error2 = (exact.p**2).sum(1)
    norm2 = error2.copy()
    entries = ((owner, records.head_ids, records.head_probs), (keys // width, keys % width, mass))
    for positions, ids, values in entries:
        error2 += np.bincount(positions, values * (values - 2 * exact.p[positions, ids]), num)
    off = np.bincount(drawn, weight[drawn] * surprise[drawn, records.draw_ids], num) - outside
    return {
        "captured": 1 - tail,
        "error2": error2,
        "norm2": norm2,
        "kl_stored": stored,
        "kl_tail_dropped": -np.log(np.maximum(1 - tail, 1e-12)),
        "kl_tail_even": even,
        "kl_tail_even_undrawn": np.where(counts == 0, even, 0.0),
        "draws_off": np.where(counts > 0, off, np.nan),
    }


@dataclass(slots=True)
class DistortionSums:
    """Distortions summed over positions."""

    positions: int = 0
    totals: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    draws_off: list[Float64] = field(default_factory=list)
    """Values of `draws_off` at positions with draws."""

    def add(self, values: dict[str, Float64]) -> None:
        """Add the distortions of some positions."""
        self.positions += len(values["captured"])
        self.draws_off.append(values["draws_off"][np.isfinite(values["draws_off"])])
        for name, value in values.items():
            if name != "draws_off":
                self.totals[name] += float(value.sum())

    def mean(self, name: str) -> float:
        """Return the mean over positions."""
        return self.totals[name] / max(1, self.positions)

    @property
    def rms(self) -> float:
        """Root mean square error of the estimate, relative to the distribution's norm."""
        return math.sqrt(max(0.0, self.totals["error2"]) / self.totals["norm2"])

    def draws_bias(self) -> tuple[float, float]:
        """Return the mean of `draws_off` and its standard error, in nats."""
        off = np.concatenate(self.draws_off) if self.draws_off else np.zeros(0)
        if len(off) < 2:
            return 0.0, 0.0
        return float(off.mean()), float(off.std(ddof=1) / math.sqrt(len(off)))


class RecordsAtThreshold:
    """Records that exact logits give at one threshold, with their distortion and size.

    Args:
        threshold: c of the records.
        layout: Layout of the cache; its threshold is replaced.
    """

    def __init__(self, threshold: float, layout: Layout) -> None:
        tail_floor = min(layout.tail_floor, threshold)
        self.spec = RecordSpec(threshold=threshold, tail_floor=tail_floor, temperatures=layout.temperatures)
        self._layout = Layout(
            vocab_size=layout.vocab_size, temperatures=layout.temperatures, threshold=threshold, tail_floor=tail_floor
        )
        self._schema = file_schema(self._layout, task="check", fingerprint="check")
        self._pieces: list[Row] = []
        self.sums = DistortionSums()
        self.num_entries = 0
        """Head entries and draws."""

    def add(
        self,
        window: Window,
        exact: ExactDistribution,
        logits: torch.Tensor,
        offsets: Float64,
        whitespace: torch.Tensor,
    ) -> None:
        """Reduce, store and read back the records of consecutive positions.

        Args:
            window: Tokens of the positions, and of the next one.
            exact: The distribution at the positions.
            logits: [P, V].
            offsets: Sampling offsets, [P].
            whitespace: Mask [V] of the ids that count as whitespace.
        """
        records = sparsify(
            logits,
            torch.from_numpy(window.labels).long().to(logits.device),
            torch.from_numpy(offsets).to(logits.device),
            spec=self.spec,
            whitespace_V=whitespace.to(logits.device),
        )
        row = to_row(window, records.pack().cpu().numpy(), self.spec)
        batch, _ = build_batch(self._layout, [row], self._schema)
        chunk = decode_chunk(self._layout, batch.serialize().to_pybytes(), where="check")
        self._pieces.append(row)
        self.num_entries += len(chunk.head_ids) + len(chunk.draw_ids)
        self.sums.add(distortions(RecordView.from_chunk(chunk), exact))

    def bytes_per_token(self) -> float:
        """Return the size of all records as one chunk, per token."""
        rows = list(_join_pieces(self._pieces))
        batch, _ = build_batch(self._layout, rows, self._schema)
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=ZSTD_LEVEL))
        with pa.ipc.new_stream(sink, self._schema, options=options) as writer:
            writer.write_batch(batch)
        return float((sink.tell() - len(self._schema.serialize())) / sum(len(r.tokens) for r in rows))


def curve_thresholds(threshold: float) -> Iterator[float]:
    """Yield the thresholds of the curve around a cache's own, in descending order."""
    return (threshold * f for f in _FACTORS if _CURVE_MIN <= threshold * f <= _CURVE_MAX)


def curve(points: list[RecordsAtThreshold], *, own: float, bytes_per_token: float) -> list[dict[str, Any]]:
    """Return the curve over thresholds as JSON.

    The fixed cost of a token is larger in a small sample, so only differences of size are taken from the sample. At
    the cache's own threshold, the size is the cache's.

    Args:
        points: The thresholds.
        own: The cache's threshold, one of them.
        bytes_per_token: Size of the cache.
    """
    sizes = [p.bytes_per_token() for p in points]
    fixed = bytes_per_token - next(size for p, size in zip(points, sizes, strict=True) if p.spec.threshold == own)
    return [
        {
            "threshold": float(f"{p.spec.threshold:.4g}"),
            "bytes_per_token": round(size + fixed, 3),
            "captured": round(p.sums.mean("captured"), 6),
            "rms": float(f"{p.sums.rms:.4g}"),
            "entries": round(p.num_entries / p.sums.positions, 3),
        }
        for p, size in zip(points, sizes, strict=True)
    ]


def _join_pieces(pieces: list[Row]) -> Iterator[Row]:
    """Yield whole rows of consecutive pieces."""
    for info, group in itertools.groupby(pieces, key=lambda r: r.info):
        parts = list(group)
        yield Row(
            info=info,
            tokens=np.concatenate((parts[0].tokens[:1], *(r.tokens[1:] for r in parts))),
            **{name: np.concatenate([getattr(r, name) for r in parts]) for name in _JOINED_ARRAYS},
        )
