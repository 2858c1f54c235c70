"""How far are records from the distributions that they stand for, and from records of another run?

Every difference is also counted in steps of the code that stores the value, so that one rule fits all of them: rounding
moves a stored value by at most half a step, whatever it is.

Shapes: P positions, V vocabulary, Z temperatures; entries of heads and draws lie flat, as in
`shards.format.chunk.Chunk`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from shards.format.batch import Row
from shards.format.chunk import Chunk
from shards.format.schema import HEAD_STEP, TAIL_STEP, Layout

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

"""Steps of the codes of probabilities in asin(sqrt(p)) (docs/format.md)."""
_SAME_PLACE = 1e-7
"""Mass by which a draw may miss its place and still count as the same: masses are summed in units of 2^-40."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """Records of P positions, stored or fresh from an engine; probabilities and masses as float64."""

    head_starts: Int64
    head_ids: Int64
    head_probs: Float64
    tail: Float64
    draw_starts: Int64
    draw_ids: Int64
    realised: Float64
    whitespace: Float64
    """Mass, not its log."""
    entropy: Float64
    log_z: Float64

    @classmethod
    def of_chunk(cls, chunk: Chunk) -> Said:
        """Take what is stored."""
        return cls(
            head_starts=chunk.head_starts,
            head_ids=chunk.head_ids.astype(np.int64),
            head_probs=chunk.head_probs.astype(np.float64),
            tail=chunk.tail_mass.astype(np.float64),
            draw_starts=chunk.draw_starts,
            draw_ids=chunk.draw_ids.astype(np.int64),
            realised=chunk.label_logp.astype(np.float64),
            whitespace=np.exp(chunk.whitespace_logp.astype(np.float64)),
            entropy=chunk.entropy.astype(np.float64),
            log_z=chunk.log_z.astype(np.float64),
        )

    @classmethod
    def of_row(cls, row: Row) -> Said:
        """Take what an engine said, before anything was rounded."""
        owner = np.repeat(np.arange(len(row.head_count)), row.head_count)
        probs = row.head_probs.astype(np.float64)
        return cls(
            head_starts=_starts(row.head_count),
            head_ids=row.head_ids.astype(np.int64),
            head_probs=probs,
            tail=np.clip(1 - np.bincount(owner, probs, len(row.head_count)), 0, 1),
            draw_starts=_starts(row.draw_count),
            draw_ids=row.draw_ids.astype(np.int64),
            realised=row.label_logp.astype(np.float64),
            whitespace=np.exp(row.whitespace_logp.astype(np.float64)),
            entropy=row.entropy.astype(np.float64),
            log_z=row.log_z.astype(np.float64),
        )

    def part(self, start: int, stop: int) -> Said:
        """Return positions `start` to `stop`."""
        heads = slice(int(self.head_starts[start]), int(self.head_starts[stop]))
        draws = slice(int(self.draw_starts[start]), int(self.draw_starts[stop]))
        return Said(
            head_starts=self.head_starts[start : stop + 1] - heads.start,
            head_ids=self.head_ids[heads],
            head_probs=self.head_probs[heads],
            tail=self.tail[start:stop],
            draw_starts=self.draw_starts[start : stop + 1] - draws.start,
            draw_ids=self.draw_ids[draws],
            realised=self.realised[start:stop],
            whitespace=self.whitespace[start:stop],
            entropy=self.entropy[start:stop],
            log_z=self.log_z[start:stop],
        )

    @property
    def head_owner(self) -> Int64:
        """Position of each head entry."""
        return np.repeat(np.arange(len(self.tail)), np.diff(self.head_starts))

    @property
    def draw_owner(self) -> Int64:
        """Position of each draw."""
        return np.repeat(np.arange(len(self.tail)), np.diff(self.draw_starts))


@dataclass(frozen=True, kw_only=True, slots=True)
class Exact:
    """The whole distribution at P positions, in float64."""

    p: Float64
    """[P, V]"""
    log_p: Float64
    realised: Float64
    whitespace: Float64
    entropy: Float64
    log_z: Float64

    @classmethod
    def of(
        cls, logits: torch.Tensor, next_ids: Int64, temperatures: tuple[float, ...], whitespace: torch.Tensor
    ) -> Exact:
        """Take logits [P, V], the realised ids [P] and the mask [V] of ids that count as whitespace."""
        log_p = torch.log_softmax(logits.double(), 1)
        p = log_p.exp()
        entropy = -(p * log_p.clamp_min(-1e4)).sum(1)
        log_z = torch.stack([(log_p / t).logsumexp(1) for t in temperatures], 1)
        return cls(
            p=p.cpu().numpy(),
            log_p=log_p.cpu().numpy(),
            realised=log_p.cpu().numpy()[np.arange(len(next_ids)), next_ids],
            whitespace=(p @ whitespace.to(p)).cpu().numpy(),
            entropy=entropy.cpu().numpy(),
            log_z=log_z.cpu().numpy(),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One kind of value, compared."""

    absolute: Float64
    """In the value's own unit; 0 where both sides agree."""
    steps: Float64
    """In steps of the value's code; for draws, in what one draw stands for."""
    position: Int64
    """Which position each belongs to."""


Differences = dict[str, Difference]


def from_exact(said: Said, exact: Exact, *, next_ids: Int64, offsets: Float64 | None, layout: Layout) -> Differences:
    """Return how far records are from the exact distribution.

    Head ids are compared by how far an id that is in one head only is from where heads end. Draws are compared by
    how far the place of a draw on the cumulative mass is from the id that it fell on; `offsets` [P] are the ones
    the records were drawn with, None where they are not known.
    """
    owner, c = said.head_owner, layout.threshold
    true = exact.p[owner, said.head_ids]
    tail = np.clip(1 - np.bincount(owner, true, len(said.tail)), 0, 1)
    in_head = np.zeros(exact.p.shape, bool)
    in_head[owner, said.head_ids] = True
    peak = exact.p.max(1)
    bar = np.minimum(c, peak)

    odd, odd_steps = np.zeros(len(said.tail)), np.zeros(len(said.tail))
    too_much = true < bar[owner]
    missing, missing_ids = np.nonzero((exact.p >= c) & ~in_head)
    wrong = np.concatenate((owner[too_much], missing))
    probs = np.concatenate((true[too_much], exact.p[missing, missing_ids]))
    np.maximum.at(odd, wrong, np.abs(probs - bar[wrong]))
    np.maximum.at(odd_steps, wrong, _apart(probs, bar[wrong], HEAD_STEP))

    found = {"head ids": Difference(absolute=odd, steps=odd_steps, position=np.arange(len(odd)))}
    found["head probabilities"] = _heads(said, np.arange(len(owner)), true, tail)
    outside = ~np.bincount(owner, said.head_ids == next_ids[owner], len(said.tail)).astype(bool)
    found |= _scalars(said, exact, tail, outside, np.ones(len(tail), bool), layout)
    if offsets is not None:
        found["draws"] = _places(said, exact, in_head, offsets)
    return found


def between(a: Said, b: Said, *, next_ids: Int64, layout: Layout) -> Differences:
    """Return how far two runs' records of the same positions are apart. Of draws, only which are in one run alone."""
    width = layout.vocab_size
    keys_a, keys_b = a.head_owner * width + a.head_ids, b.head_owner * width + b.head_ids
    _, at_a, at_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
    alone_a, alone_b = np.ones(len(keys_a), bool), np.ones(len(keys_b), bool)
    alone_a[at_a] = False
    alone_b[at_b] = False
    wrong = np.concatenate((keys_a[alone_a], keys_b[alone_b])) // width
    probs = np.concatenate((a.head_probs[alone_a], b.head_probs[alone_b]))
    odd, odd_steps = np.zeros(len(a.tail)), np.zeros(len(a.tail))
    # The likeliest id is always in the head, however small.
    peak = np.maximum(*(np.maximum.reduceat(x.head_probs, x.head_starts[:-1]) for x in (a, b)))
    bar = np.minimum(layout.threshold, peak[wrong])
    np.maximum.at(odd, wrong, np.abs(probs - bar))
    np.maximum.at(odd_steps, wrong, _apart(probs, bar, HEAD_STEP))

    found = {"head ids": Difference(absolute=odd, steps=odd_steps, position=np.arange(len(odd)))}
    found["head probabilities"] = _heads(a, at_a, b.head_probs[at_b], a.tail)
    owner = a.head_owner
    outside = ~np.bincount(owner, a.head_ids == next_ids[owner], len(a.tail)).astype(bool)
    found |= _scalars(a, b, b.tail, outside, odd == 0, layout)

    # Draws as multisets: each key with its count in either run.
    drawn_a, drawn_b = a.draw_owner * width + a.draw_ids, b.draw_owner * width + b.draw_ids
    keys, counts_a = np.unique(drawn_a, return_counts=True)
    _, at, other = np.intersect1d(keys, np.unique(drawn_b), assume_unique=True, return_indices=True)
    shared = np.minimum(counts_a[at], np.unique(drawn_b, return_counts=True)[1][other])
    lost = counts_a.copy()
    lost[at] -= shared
    missed = np.repeat(keys, lost) // width
    apart = np.zeros(len(drawn_a))
    apart[: len(missed)] = 1
    found["draws"] = Difference(
        absolute=apart,
        steps=np.zeros(len(apart)),
        position=np.concatenate((missed, np.repeat(keys, counts_a - lost) // width)),
    )
    return found


def _heads(said: Said, which: Int64, true: Float64, tail: Float64) -> Difference:
    """Compare head entries `which` with their true probabilities.

    The largest of a position is what the others and the tail leave, so all their steps move it.
    """
    owner, num = said.head_owner, len(said.tail)
    first = np.zeros(len(owner), bool)
    first[said.head_starts[:-1][np.diff(said.head_starts) > 0]] = True
    own = HEAD_STEP * 2 * np.sqrt(said.head_probs * (1 - said.head_probs)) + HEAD_STEP**2
    share = TAIL_STEP * 2 * np.sqrt(tail * (1 - tail)) + TAIL_STEP**2
    share = share + np.bincount(owner, np.where(first, 0, own), num)
    probs = said.head_probs[which]
    absolute = np.abs(probs - true)
    steps = np.where(
        first[which],
        absolute / share[owner[which]],
        _apart(np.minimum(probs, 0.5), np.minimum(true, 0.5), HEAD_STEP),
    )
    return Difference(absolute=absolute, steps=steps, position=owner[which])


def _scalars(
    said: Said,
    other: Said | Exact,
    tail: Float64,
    outside: npt.NDArray[np.bool_],
    same: npt.NDArray[np.bool_],
    layout: Layout,
) -> Differences:
    """Compare what is one number per position; the tail only where both heads are the `same`."""
    every = np.arange(len(said.tail))
    lowest = -65535 * layout.realised_step
    realised = np.abs(said.realised - np.maximum(other.realised, lowest))
    ends = [np.sqrt(np.clip(x, 0, layout.entropy_max) / layout.entropy_max) for x in (said.entropy, other.entropy)]
    log_z = np.abs(said.log_z - other.log_z)
    return {
        "tail mass": Difference(
            absolute=np.abs(said.tail - tail)[same],
            steps=_apart(said.tail, tail, TAIL_STEP)[same],
            position=every[same],
        ),
        # In the head it is a head probability, and counted there.
        "realised token": Difference(
            absolute=realised, steps=np.where(outside, realised / layout.realised_step, 0.0), position=every
        ),
        "whitespace mass": Difference(
            absolute=np.abs(said.whitespace - other.whitespace),
            steps=_apart(said.whitespace, other.whitespace, TAIL_STEP),
            position=every,
        ),
        "entropy": Difference(
            absolute=np.abs(said.entropy - other.entropy), steps=255 * np.abs(ends[0] - ends[1]), position=every
        ),
        "log Z": Difference(
            absolute=log_z.ravel(),
            steps=log_z.ravel() / layout.log_z_step,
            position=np.repeat(every, log_z.shape[1]),
        ),
    }


def _places(said: Said, exact: Exact, in_head: npt.NDArray[np.bool_], offsets: Float64) -> Difference:
    owner = said.draw_owner
    counts = np.diff(said.draw_starts)
    rest = np.where(in_head, 0, exact.p)
    cumulative = np.cumsum(rest, axis=1)
    spacing = cumulative[:, -1] / np.maximum(counts, 1)
    number = np.arange(len(owner)) - np.repeat(said.draw_starts[:-1], counts)
    place = (offsets[owner] + number) * spacing[owner]
    high = cumulative[owner, said.draw_ids]
    low = high - rest[owner, said.draw_ids]
    missed = np.maximum(np.maximum(low - place, place - high), 0)
    missed[missed < _SAME_PLACE] = 0
    steps = missed / np.maximum(spacing[owner], _SAME_PLACE)
    return Difference(absolute=missed, steps=steps, position=owner)


def _apart(p: Float64, q: Float64, step: float) -> Float64:
    """Return how many steps of the code of probabilities lie between p and q."""
    return np.abs(np.arcsin(np.sqrt(np.clip(p, 0, 1))) - np.arcsin(np.sqrt(np.clip(q, 0, 1)))) / step


def _starts(counts: Int64) -> Int64:
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
