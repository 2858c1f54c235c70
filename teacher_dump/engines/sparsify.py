"""What is kept of a teacher's distribution? Logits in, a small sparse record per position out.

Both engines call `reduce`, where the logits are, in bounded pieces, so their records differ only by what the
engines themselves compute differently.

The estimate is a threshold head plus systematic draws (docs/format.md): every id with probability c or more is
kept exactly, and M = ceil(tail / c) draws at equal steps through the cumulative rest stand for all others, each
with weight tail / M. The expected weight of each id is its probability, so the expected loss is the loss against
the full distribution. Not covered: positions whose tail is below `tail_floor` get no draws, and a loss treats
their tail as one bucket.

Masses are rounded to multiples of 2^-40 and summed as whole numbers in float64, which is exact below 2^53: the
same sums in any order on every device. Sums and searches run in two levels, over blocks of ids and then inside the
few blocks that matter, so that a position costs a handful of passes over its logits.

Shapes: P positions, V vocabulary, B blocks of ids, K head slots, M draw slots, Z temperatures.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from shards.format.codec import expected_draws

_UNIT = float(2**40)
LOGITS_BYTES = 64 * 2**20
"""Largest float32 block of logits that an engine projects at once. Smaller ones read the projection's weights more
often; larger ones break the promise of at most 256 MiB in all."""
PIECE_BYTES = {"cpu": 3 * 2**20}
"""Largest float32 block that is reduced at once: on a CPU what stays in its cache (benchmarks/reduction.py)."""
_PIECE_BYTES_ELSEWHERE = 32 * 2**20
_BLOCK = 64
"""Ids of a block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordSpec:
    """What is declared about the records of a cache."""

    threshold: float = 0.04
    """c: ids of at least this probability are in the head. One constant trades bytes for error (docs/decisions)."""
    tail_floor: float = 2e-3
    """Tail mass below which no draws are taken."""
    temperatures: tuple[float, ...] = (1.5, 2.0, 4.0)
    """Temperatures T whose log Z_T is stored, besides T = 1, where it is 0."""

    def __post_init__(self) -> None:
        if not 0.001 <= self.threshold <= 0.5:
            raise ValueError(f"threshold: found {self.threshold}, expected between 0.001 and 0.5")
        if not 0 < self.tail_floor <= self.threshold:
            raise ValueError(f"tail_floor: found {self.tail_floor}, expected above 0, at most the threshold")
        if any(t <= 0 or t == 1 for t in self.temperatures):
            raise ValueError(f"temperatures: found {self.temperatures}, expected positive and other than 1")

    @property
    def head_slots(self) -> int:
        """Most ids that can reach the threshold."""
        return int(1 / self.threshold + 1e-9)

    @property
    def draw_slots(self) -> int:
        """Most draws that a tail of mass one needs."""
        return int(np.ceil(1 / self.threshold - 1e-9))

    @property
    def columns(self) -> int:
        """Width of packed records."""
        return 2 * self.head_slots + self.draw_slots + 3 + len(self.temperatures)

    @staticmethod
    def piece_positions(vocab_size: int) -> int:
        """Return of how many positions the logits are made at once."""
        return max(1, LOGITS_BYTES // (4 * vocab_size))


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """Records of P positions as tensors of fixed width, unused slots at -1."""

    head_ids: torch.Tensor
    """[P, K] int32, largest probability first."""
    head_probs: torch.Tensor
    """[P, K] float32, 0 in unused slots."""
    draw_ids: torch.Tensor
    """[P, M] int32, ascending, repeats possible, unused slots last."""
    scalars: torch.Tensor
    """[P, 3 + Z] float32: realised log-prob, log whitespace mass, entropy, log Z_T in order."""

    def pack(self) -> torch.Tensor:
        """Return all fields side by side as one int32 tensor [P, 2K + M + 3 + Z], bits unchanged."""
        return torch.cat(
            (self.head_ids, self.head_probs.view(torch.int32), self.draw_ids, self.scalars.view(torch.int32)),
            1,
        )

    @classmethod
    def unpack(cls, packed: torch.Tensor, spec: RecordSpec) -> Records:
        """Undo `pack`."""
        heads, draws = spec.head_slots, spec.draw_slots
        ids, probs, drawn, scalars = packed.split((heads, heads, draws, 3 + len(spec.temperatures)), 1)
        return cls(
            head_ids=ids,
            head_probs=probs.contiguous().view(torch.float32),
            draw_ids=drawn,
            scalars=scalars.contiguous().view(torch.float32),
        )


def offsets(document: str, window: int, seed: int, num_positions: int) -> np.ndarray:
    """Return the sampling offset u in [0, 1) of each position of a window, float64 [num_positions].

    A counter-based generator (Philox) keyed by document, window and seed, read in order of position: the draws
    depend neither on batching nor on the worker nor on a restart.
    """
    key = hashlib.sha256(f"{document}/{window}/{seed}".encode()).digest()
    words = np.frombuffer(key, dtype="<u8", count=2)
    return np.random.Generator(np.random.Philox(key=words)).random(num_positions)


def reduce(
    logits_PV: torch.Tensor,
    next_ids_P: torch.Tensor,
    offsets_P: torch.Tensor,
    *,
    spec: RecordSpec,
    whitespace_V: torch.Tensor,
) -> Records:
    """Reduce logits to records, piece by piece.

    `logits_PV` float [P, V], V without vocabulary padding; `next_ids_P` int64 [P], the realised tokens;
    `offsets_P` float64 [P] in [0, 1); `whitespace_V` float32 [V], 1 where a token begins with a whitespace byte
    or ends the text. Raises ValueError where logits are not finite.
    """
    num_positions, num_ids = logits_PV.shape
    device = logits_PV.device
    step = max(1, PIECE_BYTES.get(device.type, _PIECE_BYTES_ELSEWHERE) // (4 * num_ids))
    room = _Room.of(min(step, num_positions), num_ids, device)
    whitespace_V = F.pad(whitespace_V, (0, -num_ids % _BLOCK))
    expected_C = torch.from_numpy(expected_draws(spec.threshold, spec.tail_floor)).to(device)
    pieces = []
    for i in range(0, num_positions, step):
        part = slice(i, i + step)
        piece = _reduce_piece(logits_PV[part], next_ids_P[part], offsets_P[part], spec, whitespace_V, expected_C, room)
        pieces.append(piece)
    records = Records(**{name: torch.cat([getattr(p, name) for p in pieces]) for name in Records.__slots__})
    # Asked once a call: every question makes a GPU wait.
    if not torch.isfinite(records.scalars[:, ::2]).all():
        raise ValueError(
            "found logits that are not finite, expected finite ones: check the teacher's weights and dtype"
        )
    return records


@dataclass(frozen=True, slots=True)
class _Room:
    """Memory for one piece, taken once a call: fresh memory of this size costs more than the arithmetic in it.

    Widths are multiples of the block.
    """

    logits: torch.Tensor
    """[P, V] float32."""
    power: torch.Tensor
    """[P, V] float32."""
    mass: torch.Tensor
    """[P, V] float64."""

    @classmethod
    def of(cls, positions: int, num_ids: int, device: torch.device) -> _Room:
        width = num_ids + -num_ids % _BLOCK
        single = torch.empty(2, positions, width, device=device)
        return cls(*single.unbind(), torch.empty(positions, width, dtype=torch.float64, device=device))


def _reduce_piece(
    logits_PV: torch.Tensor,
    next_ids_P: torch.Tensor,
    offsets_P: torch.Tensor,
    spec: RecordSpec,
    whitespace_V: torch.Tensor,
    expected_draws_C: torch.Tensor,
    room: _Room,
) -> Records:
    """Reduce a piece of logits; `expected_draws_C` by tail code."""
    count, num_ids = logits_PV.shape
    x_PV, e_PV, mass_PV = room.logits[:count], room.power[:count], room.mass[:count]
    # A copy that is near: it is read four times, and the block that it comes from is far larger than a cache.
    x_PV[:, :num_ids] = logits_PV
    x_PV[:, num_ids:] = -torch.inf
    ids_PK = _largest(x_PV, min(spec.head_slots, num_ids))
    log_sums = dict(_log_sums(x_PV, (1.0, *spec.temperatures), peak_P1=ids_PK[:, :1], out_PV=e_PV))
    sum_P1 = e_PV.sum(1, keepdim=True)  # of exp(x) times a constant of the row, which falls out of all that follows
    top_PK = e_PV.gather(1, ids_PK) / sum_P1
    realised_P1 = x_PV.gather(1, next_ids_P[:, None]) - log_sums[1.0]
    mean_P1 = x_PV[:, :num_ids].mul_(e_PV[:, :num_ids]).sum(1, keepdim=True) / sum_P1
    white_P1 = ((e_PV @ whitespace_V)[:, None] / sum_P1).log()
    log_z = [log_sums[t] - log_sums[1.0] / t for t in spec.temperatures]
    scalars = torch.cat((realised_P1, white_P1, (log_sums[1.0] - mean_P1).clamp_min(0), *log_z), 1)

    kept_PK = top_PK >= spec.threshold
    kept_PK[:, 0] = True
    unused = (0, spec.head_slots - ids_PK.shape[1])
    head_ids = F.pad(torch.where(kept_PK, ids_PK, -1).int(), unused, value=-1)
    head_probs = F.pad(torch.where(kept_PK, top_PK, 0.0), unused)
    # As many draws as a reader expects of the stored, quantised tail: then their number costs no bytes.
    tail_P = (1 - head_probs.double().sum(1)).clamp(0, 1)
    codes_P = (tail_P.sqrt().asin() * (510 / math.pi)).round().nan_to_num().long().clamp_max(254)
    # Whole numbers from here on; what is not kept is put back after the scatter has cleared all of the top.
    e_PV.mul_(_UNIT / sum_P1).round_()
    e_PV.scatter_(1, ids_PK, e_PV.gather(1, ids_PK).masked_fill(kept_PK, 0))
    draw_ids = _systematic(mass_PV.copy_(e_PV), expected_draws_C[codes_P], offsets_P, spec.draw_slots)
    return Records(head_ids=head_ids, head_probs=head_probs, draw_ids=draw_ids, scalars=scalars)


def _largest(x_PV: torch.Tensor, count: int) -> torch.Tensor:
    """Return the ids of the `count` largest entries: int64 [P, count], largest first, equal ones by rising id.

    They lie in the `count` blocks of largest maximum.
    """
    blocks_PBI = x_PV.unflatten(1, (-1, _BLOCK))
    near_PB = blocks_PBI.amax(2).topk(min(count, blocks_PBI.shape[1]), dim=1, sorted=False).indices
    ids_PN = (near_PB[:, :, None] * _BLOCK + torch.arange(_BLOCK, device=x_PV.device)).flatten(1)
    top_PK, at_PK = x_PV.gather(1, ids_PN).topk(count, dim=1, sorted=False)
    ids_PK, by_id_PK = ids_PN.gather(1, at_PK).sort(1)
    return ids_PK.gather(1, top_PK.gather(1, by_id_PK).sort(dim=1, descending=True, stable=True).indices)


def _log_sums(
    x_PV: torch.Tensor, temperatures: Collection[float], *, peak_P1: torch.Tensor, out_PV: torch.Tensor
) -> Iterator[tuple[float, torch.Tensor]]:
    """Yield (T, log sum_v exp(x_v / T) [P, 1]) for each temperature, 1 among them; `peak_P1` the largest entry's id.

    Leaves exp(x), times a constant of each row, in `out_PV`. Half a temperature is a square, so exponentials are
    taken only where no other temperature is the double, and by a softmax, which has the fastest kernel everywhere.
    """
    largest_P1 = x_PV.gather(1, peak_P1)
    for chain in _chains(temperatures):
        torch.softmax(torch.mul(x_PV, 1 / chain[0], out=out_PV), 1, out=out_PV)
        for t in chain:
            if t != chain[0]:
                out_PV.square_()
            # At the peak the sum's own term is exp(largest / T).
            yield t, largest_P1 / t + (out_PV.sum(1, keepdim=True) / out_PV.gather(1, peak_P1)).log()


def _chains(temperatures: Collection[float]) -> list[list[float]]:
    """Split temperatures into runs of halves, the run with 1 last; of three at most, for float32's range."""
    chains: list[list[float]] = []
    for t in sorted(temperatures, reverse=True):
        run = next((c for c in chains if c[-1] == 2 * t and len(c) < 3), None)
        if run is None:
            chains.append([t])
        else:
            run.append(t)
    return sorted(chains, key=lambda chain: 1.0 in chain)


def _systematic(mass_PV: torch.Tensor, num_draws_P: torch.Tensor, offsets_P: torch.Tensor, slots: int) -> torch.Tensor:
    """Draw ids at equal steps through the cumulative mass: int32 [P, slots], ascending, unused slots at -1.

    `mass_PV` float64, whole numbers; `num_draws_P` how many draws; `offsets_P` float64 in [0, 1).
    """
    blocks_PBI = mass_PV.unflatten(1, (-1, _BLOCK))
    upto_PB = blocks_PBI.sum(2).cumsum(1)
    rest_P1 = upto_PB[:, -1:]
    num_draws_P1 = num_draws_P[:, None].masked_fill(rest_P1 == 0, 0)
    m_M = torch.arange(slots, dtype=torch.float64, device=mass_PV.device)
    # Points lie strictly inside [0, rest): a draw never lands on an id of mass zero.
    points_PM = ((offsets_P[:, None] + m_M) * (rest_P1 / num_draws_P1.clamp_min(1))).floor()
    points_PM = points_PM.minimum((rest_P1 - 1).clamp_min(0))
    block_PM = torch.searchsorted(upto_PB, points_PM, right=True).clamp_max(upto_PB.shape[1] - 1)
    before_PM = torch.where(block_PM > 0, upto_PB.gather(1, (block_PM - 1).clamp_min(0)), 0.0)
    row_P1 = torch.arange(len(mass_PV), device=mass_PV.device)[:, None]
    inside_PMI = blocks_PBI[row_P1, block_PM].cumsum(2)
    at_PM = torch.searchsorted(inside_PMI, (points_PM - before_PM)[:, :, None], right=True)[:, :, 0]
    ids_PM = block_PM * _BLOCK + at_PM
    return torch.where(m_M < num_draws_P1, ids_PM, -1).int()
