"""What is lost between the teacher and the records, at a cache's threshold and at others?

Each loss is measured alone: quantisation against records that were not rounded, truncation with exact masses. The
curve over thresholds answers which c to choose: bytes against captured mass and against the error of the estimate.
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
from teacher_dump.fidelity.differences import Exact, Float64, Said
from teacher_dump.tasks.windowing import Window

CURVE_TOKENS = 4096
"""Tokens, in whole rows, that the curve over thresholds is measured on: each costs a reduction per threshold."""
_FACTORS = (4.0, 2.0, 1.0, 0.5, 0.25)


def losses(said: Said, exact: Exact) -> dict[str, Float64]:
    """Return what records lose at each position, float64 [P]; divergences in nats.

    error2, norm2: squared distance of the estimate (head and draws, each draw tau / M) to the distribution, and the
        squared norm of that. A loss' gradient with respect to a student's logits is wrong by the same distance.
    kl_stored: KL(exact head and tail || stored ones), the tail as one outcome; a stored tail of 0 counts as half a
        unit, 2^-25.
    kl_tail_dropped: KL(head renormalised || teacher).
    kl_tail_even, kl_tail_even_undrawn: KL(teacher || tail spread evenly over its ids), everywhere and only where
        there are no draws; with draws the expected estimate is the teacher itself.
    draws_off: cross-entropy of the teacher by the draws minus by the exact tail, where there are draws, else NaN: an
        unbiased estimate has mean 0.
    """
    num, width = exact.p.shape
    owner, drawn = said.head_owner, said.draw_owner
    p = exact.p[owner, said.head_ids]
    tail = np.clip(1 - np.bincount(owner, p, num), 0, 1)
    stored = np.bincount(owner, p * np.log(np.maximum(p, 1e-300) / np.maximum(said.head_probs, 0.5 / UNIT)), num)
    stored = stored + tail * np.log(np.maximum(tail, 1e-300) / np.maximum(said.tail, 0.5 / UNIT))

    # Entropy of what is outside the head, times its mass: -sum t log(t / tau).
    surprise = -exact.log_p
    outside = exact.entropy - np.bincount(owner, p * surprise[owner, said.head_ids], num)
    within = outside + tail * np.log(np.maximum(tail, 1e-300))
    even = tail * np.log(np.maximum(width - np.diff(said.head_starts), 1)) - within

    counts = np.diff(said.draw_starts)
    weight = said.tail / np.maximum(counts, 1)
    # Draws of one id add up, so that their square is not the sum of their squares.
    keys, which = np.unique(drawn * width + said.draw_ids, return_inverse=True)
    mass = np.bincount(which, weight[drawn], len(keys)) if len(keys) else np.zeros(0)
    at, ids = keys // width, keys % width
    error2 = (exact.p**2).sum(1)
    norm2 = error2.copy()
    for place, entries, values in ((owner, said.head_ids, said.head_probs), (at, ids, mass)):
        error2 += np.bincount(place, values * (values - 2 * exact.p[place, entries]), num)
    off = np.bincount(drawn, weight[drawn] * surprise[drawn, said.draw_ids], num) - outside
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
class Sums:
    """Losses added up over positions."""

    positions: int = 0
    totals: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    off: list[Float64] = field(default_factory=list)
    """`draws_off` where there are draws."""

    def add(self, values: dict[str, Float64]) -> None:
        """Add the losses of some positions."""
        self.positions += len(values["captured"])
        self.off.append(values["draws_off"][np.isfinite(values["draws_off"])])
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
        off = np.concatenate(self.off) if self.off else np.zeros(0)
        if len(off) < 2:
            return 0.0, 0.0
        return float(off.mean()), float(off.std(ddof=1) / math.sqrt(len(off)))


class Threshold:
    """Records as they would be at one threshold, made of exact logits."""

    def __init__(self, threshold: float, layout: Layout) -> None:
        floor = min(layout.tail_floor, threshold)
        self.spec = RecordSpec(threshold=threshold, tail_floor=floor, temperatures=layout.temperatures)
        self._layout = Layout(
            vocab_size=layout.vocab_size, temperatures=layout.temperatures, threshold=threshold, tail_floor=floor
        )
        self._schema = file_schema(self._layout, task="check", fingerprint="check")
        self._rows: list[Row] = []
        self.sums = Sums()
        self.entries = 0

    def observe(self, window: Window, exact: Exact, logits: torch.Tensor, u: Float64, whitespace: torch.Tensor) -> None:
        """Make, store and read back the records of some consecutive positions; `window` holds their tokens."""
        records = sparsify(
            logits,
            torch.from_numpy(window.tokens[1:]).long().to(logits.device),
            torch.from_numpy(u).to(logits.device),
            spec=self.spec,
            whitespace_V=whitespace.to(logits.device),
        )
        row = to_row(window, records.pack().cpu().numpy(), self.spec)
        batch, _ = build_batch(self._layout, [row], self._schema)
        chunk = decode_chunk(self._layout, batch.serialize().to_pybytes(), where="check")
        self._rows.append(row)
        self.entries += len(chunk.head_ids) + len(chunk.draw_ids)
        self.sums.add(losses(Said.of_chunk(chunk), exact))

    def bytes_per_token(self) -> float:
        """Return the size of all records as one chunk, over its tokens."""
        rows = list(_joined(self._rows))
        batch, _ = build_batch(self._layout, rows, self._schema)
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=ZSTD_LEVEL))
        with pa.ipc.new_stream(sink, self._schema, options=options) as writer:
            writer.write_batch(batch)
        return float((sink.tell() - len(self._schema.serialize())) / sum(len(r.tokens) for r in rows))


def _joined(pieces: list[Row]) -> Iterator[Row]:
    """Yield whole rows of consecutive pieces."""
    arrays = ("head_count", "head_ids", "head_probs", "draw_count", "draw_ids", "label_logp", "whitespace_logp",
              "entropy", "log_z")  # fmt: skip
    for info, group in itertools.groupby(pieces, key=lambda r: r.info):
        parts = list(group)
        yield Row(
            info=info,
            tokens=np.concatenate((parts[0].tokens[:1], *(r.tokens[1:] for r in parts))),
            **{name: np.concatenate([getattr(r, name) for r in parts]) for name in arrays},
        )


def thresholds(c: float) -> Iterator[float]:
    """Yield the thresholds of the curve around a cache's own, in falling order."""
    return (c * f for f in _FACTORS if 0.004 <= c * f <= 0.5)


def curve(points: list[Threshold], *, own: float, bytes_per_token: float) -> list[dict[str, Any]]:
    """Return the curve as JSON.

    What a token costs at any c weighs more in a small sample, so only differences of size are taken from it: the
    cache's own c has the cache's own size.
    """
    sizes = [p.bytes_per_token() for p in points]
    fixed = bytes_per_token - next(s for p, s in zip(points, sizes, strict=True) if p.spec.threshold == own)
    return [
        {
            "threshold": float(f"{p.spec.threshold:.4g}"),
            "bytes_per_token": round(size + fixed, 3),
            "captured": round(p.sums.mean("captured"), 6),
            "rms": float(f"{p.sums.rms:.4g}"),
            "entries": round(p.entries / p.sums.positions, 3),
        }
        for p, size in zip(points, sizes, strict=True)
    ]
