"""Comparison of rows with the exact distribution: stored records, fresh records, and what rounding alone does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from shards.format.batch import Row
from shards.format.chunk import Chunk
from shards.read import Cache
from teacher_dump.engines.base import EngineConfig
from teacher_dump.fidelity.differences import Tallies, add_differences, compare_with_exact, tallies_to_dict
from teacher_dump.fidelity.distortion import (
    CURVE_TOKENS,
    DistortionSums,
    RecordsAtThreshold,
    curve,
    curve_thresholds,
    distortions,
)
from teacher_dump.fidelity.reference import Reference, window_offsets
from teacher_dump.fidelity.views import ExactDistribution, Float64, RecordView
from teacher_dump.tasks.windowing import Window

_FIDELITY_MEANS = ("captured", "kl_stored", "kl_tail_dropped", "kl_tail_even", "kl_tail_even_undrawn")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedRow:
    """One row of a cache, with records of it from three sources."""

    number: int
    """Number of the row in the cache."""
    window: Window
    stored: Chunk
    plain: Row
    """From the model's plain forward in the engine's dtype."""
    engine: Row
    """From a fresh run of the engine."""


class ExactComparison:
    """Accumulates comparisons of rows with the exact distribution.

    Args:
        cache: The cache.
        config: Settings of the engine that repeats the cache's records.
        reference: The teacher in a wider dtype.
    """

    def __init__(self, cache: Cache, config: EngineConfig, reference: Reference) -> None:
        self._cache, self._config, self._reference = cache, config, reference
        self._layout = cache.manifest.layout
        self._whitespace = torch.from_numpy(config.whitespace_mask())
        self._offsets_known = isinstance(cache.manifest.settings.get("seed"), int)
        self._tallies: dict[str, Tallies] = {"stored": {}, "rounding": {}, "engine_error": {}}
        self._stored_sums = DistortionSums()
        self._points = [RecordsAtThreshold(c, self._layout) for c in curve_thresholds(self._layout.threshold)]
        self._own = next(p for p in self._points if p.spec.threshold == self._layout.threshold)
        self._curve: list[dict[str, Any]] = []
        self._curve_tokens = 0
        self._num_tokens = self._num_positions = 0
        """Of the rows so far; a row's first token does not count."""

    def add(self, row: CheckedRow, *, is_last: bool) -> None:
        """Compare a row.

        Args:
            row: The row.
            is_last: Whether no other row follows: the curve over thresholds is then computed from the rows so far.
        """
        sides = {
            "stored": RecordView.from_chunk(row.stored),
            "rounding": RecordView.from_row(row.plain),
            "engine_error": RecordView.from_row(row.engine),
        }
        offsets = window_offsets(row.window, self._config.seed)
        first = 0
        for logits in self._reference.logits(row.window):
            last = first + len(logits)
            piece = _piece(row.window, first, last)
            labels = piece.labels.astype(np.int64)
            exact = ExactDistribution.from_logits(logits, labels, self._layout.temperatures, self._whitespace)
            for side, records in sides.items():
                known = offsets[first:last] if side != "stored" or self._offsets_known else None
                differences = compare_with_exact(
                    records.slice(first, last), exact, labels=labels, offsets=known, layout=self._layout
                )
                add_differences(self._tallies[side], differences, row.number, first)
            self._stored_sums.add(distortions(sides["stored"].slice(first, last), exact))
            self._add_to_curve(piece, exact, logits, offsets[first:last])
            first = last
        self._curve_tokens += len(row.window.tokens)
        self._num_tokens += len(row.window.tokens) - 1
        self._num_positions += len(row.window.labels)
        if not self._curve and (self._curve_tokens >= CURVE_TOKENS or is_last):
            # The curve is of tokens with a record: in a cache of responses, those of the context count for none.
            bytes_per_token = self._cache.bytes_per_token * (self._num_tokens / max(1, self._num_positions))
            self._curve = curve(self._points, own=self._layout.threshold, bytes_per_token=bytes_per_token)

    def _add_to_curve(self, piece: Window, exact: ExactDistribution, logits: torch.Tensor, offsets: Float64) -> None:
        # After the curve is computed, only the cache's own threshold is measured further.
        for point in [self._own] if self._curve else self._points:
            point.add(piece, exact, logits, offsets, self._whitespace)

    def result(self) -> dict[str, Any]:
        """Return the statistics, the fidelity of the stored records and the curve over thresholds, as JSON."""
        bias, error = self._stored_sums.draws_bias()
        return {
            **{side: tallies_to_dict(t, with_place=side == "stored") for side, t in self._tallies.items()},
            "fidelity": {
                **{name: _rounded(self._stored_sums.mean(name)) for name in _FIDELITY_MEANS},
                "kl_quantised": _rounded(self._own.sums.mean("kl_stored")),
                "draws_bias": _rounded(bias),
                "draws_bias_error": _rounded(error),
                "rms": _rounded(self._stored_sums.rms),
            },
            "curve": self._curve,
        }


def _piece(window: Window, first: int, last: int) -> Window:
    """Return positions `first` to `last` of a window, as the window of a document without a context."""
    before = window.info.context - 1
    return Window(
        info=replace(window.info, context=1, messages=""), tokens=window.tokens[before + first : before + last + 1]
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
