"""Differences between records and the exact distribution, and between records of two runs.

Each difference is also counted in steps of the code that stores the value. One rule then fits all kinds of values:
rounding moves a stored value by at most half a step.

Shapes: P positions, V vocabulary; entries of heads and draws are flat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.format.schema import HEAD_STEP, MAX_CODE, TAIL_STEP, Layout
from teacher_dump.fidelity.views import ExactDistribution, Float64, Int64, RecordView

_PLACE_TOLERANCE = 1e-7
"""Mass by which a draw may miss its place and still agree: masses are summed in units of 2^-40."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Differences of one kind of value."""

    absolute: Float64
    """In the value's own unit; 0 where both sides agree."""
    steps: Float64
    """In steps of the value's code; for draws, in the mass that one draw stands for."""
    position: Int64
    """Position of each difference."""


Differences = dict[str, Difference]
"""Differences by kind of value. The kinds are keys of check.json."""


@dataclass(slots=True)
class DifferenceTally:
    """Statistics of the differences of one kind of value, over rows."""

    count: int = 0
    agreeing: int = 0
    total: float = 0.0
    total_steps: float = 0.0
    largest: float = 0.0
    largest_steps: float = 0.0
    place: tuple[int, int] = field(default=(-1, -1))
    """Row and position of the largest difference in steps."""

    def add(self, difference: Difference, row: int, first: int = 0) -> None:
        """Add the differences of consecutive positions of a row.

        Args:
            difference: The differences.
            row: Number of the row.
            first: Position in the row that the differences' positions are counted from.
        """
        if not len(difference.absolute):
            return
        self.count += len(difference.absolute)
        self.agreeing += int((difference.absolute == 0).sum())
        self.total += float(difference.absolute.sum())
        self.total_steps += float(difference.steps.sum())
        self.largest = max(self.largest, float(difference.absolute.max()))
        worst = int(difference.steps.argmax())
        if self.place[0] < 0 or difference.steps[worst] > self.largest_steps:
            self.largest_steps = float(difference.steps[worst])
            self.place = (row, first + int(difference.position[worst]))

    def to_dict(self, *, with_place: bool) -> dict[str, Any]:
        """Return the statistics as JSON, optionally with the place of the largest difference in steps."""
        place = {"row": self.place[0], "position": self.place[1]} if with_place else {}
        return {
            "mean": _rounded(self.total / max(1, self.count)),
            "max": _rounded(self.largest),
            "mean_steps": _rounded(self.total_steps / max(1, self.count)),
            "max_steps": _rounded(self.largest_steps),
            "agree": self.agreeing / max(1, self.count),
            **place,
        }


Tallies = dict[str, DifferenceTally]
"""Statistics by kind of value."""


def add_differences(tallies: Tallies, differences: Mapping[str, Difference], row: int, first: int = 0) -> None:
    """Add differences of every kind."""
    for kind, difference in differences.items():
        tallies.setdefault(kind, DifferenceTally()).add(difference, row, first)


def tallies_to_dict(tallies: Tallies, *, with_place: bool = False) -> dict[str, dict[str, Any]]:
    """Return statistics by kind of value as JSON."""
    return {kind: tally.to_dict(with_place=with_place) for kind, tally in tallies.items()}


def compare_with_exact(
    records: RecordView, exact: ExactDistribution, *, labels: Int64, offsets: Float64 | None, layout: Layout
) -> Differences:
    """Compare records with the exact distribution.

    The difference of an id that is in one head only is the distance of its probability to the limit of the head. The
    difference of a draw is the distance of its place on the cumulative mass to the id that was drawn.

    Args:
        records: The records.
        exact: The distribution at the same positions.
        labels: Ids of the next tokens, [P].
        offsets: Sampling offsets of the draws, [P]; None if they are unknown: draws are not compared.
        layout: Layout of the cache.
    """
    owner, num = records.head_owner, len(records.tail)
    true = exact.p[owner, records.head_ids]
    tail: Float64 = np.clip(1 - np.bincount(owner, true, num), 0, 1)
    in_head = np.zeros(exact.p.shape, bool)
    in_head[owner, records.head_ids] = True
    limit = np.minimum(layout.threshold, exact.p.max(1))

    too_small = true < limit[owner]
    missing, missing_ids = np.nonzero((exact.p >= layout.threshold) & ~in_head)
    differences = {
        "head ids": _head_ids(
            np.concatenate((owner[too_small], missing)),
            np.concatenate((true[too_small], exact.p[missing, missing_ids])),
            limit,
        ),
        "head probabilities": _head_probabilities(records, np.arange(len(owner)), true, tail),
    }
    differences |= _scalars(records, exact, tail, labels, np.ones(num, bool), layout)
    if offsets is not None:
        differences["draws"] = _draw_places(records, exact, in_head, offsets)
    return differences


def compare_runs(a: RecordView, b: RecordView, *, labels: Int64, layout: Layout) -> Differences:
    """Compare two runs' records of the same positions. A draw differs if it is in run `a` alone.

    Args:
        a: Records of the first run.
        b: Records of the second run.
        labels: Ids of the next tokens, [P].
        layout: Layout of the cache.
    """
    width = layout.vocab_size
    keys_a, keys_b = a.head_owner * width + a.head_ids, b.head_owner * width + b.head_ids
    _, at_a, at_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
    alone_a, alone_b = np.ones(len(keys_a), bool), np.ones(len(keys_b), bool)
    alone_a[at_a] = False
    alone_b[at_b] = False
    # The most probable id is always in the head, even below the threshold.
    peak = np.maximum(*(np.maximum.reduceat(x.head_probs, x.head_starts[:-1]) for x in (a, b)))
    head_ids = _head_ids(
        np.concatenate((keys_a[alone_a], keys_b[alone_b])) // width,
        np.concatenate((a.head_probs[alone_a], b.head_probs[alone_b])),
        np.minimum(layout.threshold, peak),
    )
    return {
        "head ids": head_ids,
        "head probabilities": _head_probabilities(a, at_a, b.head_probs[at_b], a.tail),
        **_scalars(a, b, b.tail, labels, head_ids.absolute == 0, layout),
        "draws": _draws_of_one_run(a, b, width),
    }


def _head_ids(positions: Int64, probs: Float64, limit: Float64) -> Difference:
    """Return the largest distance to the limit of the head at each position.

    Args:
        positions: Position of each id that is in one head only.
        probs: Probability of each such id.
        limit: Least probability of a head entry, [P].
    """
    absolute, steps = np.zeros(len(limit)), np.zeros(len(limit))
    np.maximum.at(absolute, positions, np.abs(probs - limit[positions]))
    np.maximum.at(steps, positions, _code_steps(probs, limit[positions], HEAD_STEP))
    return Difference(absolute=absolute, steps=steps, position=np.arange(len(limit)))


def _head_probabilities(records: RecordView, entries: Int64, true: Float64, tail: Float64) -> Difference:
    """Compare head entries with their true probabilities.

    The largest probability of a position is stored as the remainder of the others and the tail, so the steps of all
    of them move it.

    Args:
        records: The records.
        entries: Indices of the head entries to compare.
        true: True probability of each entry.
        tail: True tail mass, [P].
    """
    owner, num = records.head_owner, len(records.tail)
    is_first = np.zeros(len(owner), bool)
    is_first[records.head_starts[:-1][np.diff(records.head_starts) > 0]] = True
    own_step = HEAD_STEP * 2 * np.sqrt(records.head_probs * (1 - records.head_probs)) + HEAD_STEP**2
    remainder_step = TAIL_STEP * 2 * np.sqrt(tail * (1 - tail)) + TAIL_STEP**2
    remainder_step = remainder_step + np.bincount(owner, np.where(is_first, 0, own_step), num)
    probs = records.head_probs[entries]
    absolute = np.abs(probs - true)
    steps = np.where(
        is_first[entries],
        absolute / remainder_step[owner[entries]],
        _code_steps(np.minimum(probs, 0.5), np.minimum(true, 0.5), HEAD_STEP),
    )
    return Difference(absolute=absolute, steps=steps, position=owner[entries])


def _scalars(
    records: RecordView,
    other: RecordView | ExactDistribution,
    tail: Float64,
    labels: Int64,
    same_head: npt.NDArray[np.bool_],
    layout: Layout,
) -> Differences:
    """Compare the values that are one number per position; the tail only where both heads are the same."""
    positions, owner = np.arange(len(records.tail)), records.head_owner
    # The label's log-probability is stored separately only outside the head.
    outside = ~np.bincount(owner, records.head_ids == labels[owner], len(records.tail)).astype(bool)
    lowest = -MAX_CODE * layout.realised_step
    label_logp = np.abs(records.label_logp - np.maximum(other.label_logp, lowest))
    roots = [np.sqrt(np.clip(x, 0, layout.entropy_max) / layout.entropy_max) for x in (records.entropy, other.entropy)]
    log_z = np.abs(records.log_z - other.log_z)
    return {
        "tail mass": Difference(
            absolute=np.abs(records.tail - tail)[same_head],
            steps=_code_steps(records.tail, tail, TAIL_STEP)[same_head],
            position=positions[same_head],
        ),
        "realised token": Difference(
            absolute=label_logp, steps=np.where(outside, label_logp / layout.realised_step, 0.0), position=positions
        ),
        "whitespace mass": Difference(
            absolute=np.abs(records.whitespace - other.whitespace),
            steps=_code_steps(records.whitespace, other.whitespace, TAIL_STEP),
            position=positions,
        ),
        "entropy": Difference(
            absolute=np.abs(records.entropy - other.entropy),
            steps=255 * np.abs(roots[0] - roots[1]),
            position=positions,
        ),
        "log Z": Difference(
            absolute=log_z.ravel(),
            steps=log_z.ravel() / layout.log_z_step,
            position=np.repeat(positions, log_z.shape[1]),
        ),
    }


def _draw_places(
    records: RecordView, exact: ExactDistribution, in_head: npt.NDArray[np.bool_], offsets: Float64
) -> Difference:
    """Compare each drawn id with the place of the draw on the cumulative mass outside the head."""
    owner = records.draw_owner
    counts = np.diff(records.draw_starts)
    rest = np.where(in_head, 0, exact.p)
    cumulative = np.cumsum(rest, axis=1)
    spacing = cumulative[:, -1] / np.maximum(counts, 1)
    number = np.arange(len(owner)) - np.repeat(records.draw_starts[:-1], counts)
    place = (offsets[owner] + number) * spacing[owner]
    high = cumulative[owner, records.draw_ids]
    low = high - rest[owner, records.draw_ids]
    missed = np.maximum(np.maximum(low - place, place - high), 0)
    missed[missed < _PLACE_TOLERANCE] = 0
    steps = missed / np.maximum(spacing[owner], _PLACE_TOLERANCE)
    return Difference(absolute=missed, steps=steps, position=owner)


def _draws_of_one_run(a: RecordView, b: RecordView, width: int) -> Difference:
    """Compare draws as multisets: 1 for each draw of `a` without a counterpart in `b`, else 0."""
    drawn_a, drawn_b = a.draw_owner * width + a.draw_ids, b.draw_owner * width + b.draw_ids
    keys, counts = np.unique(drawn_a, return_counts=True)
    keys_b, counts_b = np.unique(drawn_b, return_counts=True)
    _, at_a, at_b = np.intersect1d(keys, keys_b, assume_unique=True, return_indices=True)
    unmatched = counts.copy()
    unmatched[at_a] -= np.minimum(counts[at_a], counts_b[at_b])
    unmatched_positions = np.repeat(keys, unmatched) // width
    absolute = np.zeros(len(drawn_a))
    absolute[: len(unmatched_positions)] = 1
    return Difference(
        absolute=absolute,
        steps=np.zeros(len(absolute)),
        position=np.concatenate((unmatched_positions, np.repeat(keys, counts - unmatched) // width)),
    )


def _code_steps(p: Float64, q: Float64, step: float) -> Float64:
    """Return the distance of two probabilities in steps of their code."""
    steps: Float64 = np.abs(np.arcsin(np.sqrt(np.clip(p, 0, 1))) - np.arcsin(np.sqrt(np.clip(q, 0, 1)))) / step
    return steps


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
