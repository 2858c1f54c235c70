"""Noise of an engine: differences between two runs of the same rows in other batches, before quantisation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from shards.format.batch import Row
from shards.format.schema import Layout
from teacher_dump.engines.base import Engine
from teacher_dump.engines.records import RecordSpec, to_row
from teacher_dump.fidelity.differences import Tallies, add_differences, compare_runs
from teacher_dump.fidelity.views import RecordView
from teacher_dump.tasks.windowing import Window


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatedRows:
    """Rows that an engine captured twice."""

    windows: tuple[Window, ...]
    alone: list[Row]
    """Each row captured in a batch of its own."""
    together: list[Row]
    """The same rows captured in one call, in reversed order."""

    @classmethod
    def capture(cls, engine: Engine, windows: Sequence[Window], spec: RecordSpec) -> RepeatedRows:
        """Capture windows twice."""
        alone = [to_row(window, packed, spec) for window in windows for packed in engine.capture([window])]
        batch = [*windows[::-1], windows[0]]  # at least two rows, even for one window
        together = [to_row(w, packed, spec) for w, packed in zip(batch, engine.capture(batch), strict=True)]
        return cls(windows=tuple(windows), alone=alone, together=together[:-1][::-1])

    def noise(self, numbers: Iterable[int], layout: Layout) -> Tallies:
        """Return the statistics of the differences between the two runs.

        Args:
            numbers: Number of each row in the cache.
            layout: Layout of the cache.
        """
        tallies: Tallies = {}
        for number, window, a, b in zip(numbers, self.windows, self.alone, self.together, strict=True):
            differences = compare_runs(
                RecordView.from_row(a),
                RecordView.from_row(b),
                labels=window.labels.astype(np.int64),
                layout=layout,
            )
            add_differences(tallies, differences, number)
        return tallies
