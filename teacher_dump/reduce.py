"""What is kept of a teacher's distribution? Logits in, a small sparse record per position out.

Both engines call `reduce`, where the logits are, in bounded pieces, so their records differ only by what the
engines themselves compute differently.

The estimate is a threshold head plus systematic draws (docs/format.md): every id with probability c or more is
kept exactly, and M = ceil(tail / c) draws at equal steps through the cumulative rest stand for all others, each
with weight tail / M. The expected weight of each id is its probability, so the expected loss is the loss against
the full distribution. Not covered: positions whose tail is below `tail_floor` get no draws, and a loss treats
their tail as one bucket.

Cumulative sums run in integers (unit 2^-40): exact, and the same on every device, where float sums are not.

Shapes: P positions, V vocabulary, K head slots, M draw slots, Z temperatures.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from shards.codec import expected_draws, tail_code

_UNIT = float(2**40)
PIECE_BYTES = 16 * 2**20
"""Largest float32 block of logits that is reduced at once, in bytes; about five such blocks live at a time."""


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
        """Return how many positions are reduced at once."""
        return max(1, PIECE_BYTES // (4 * vocab_size))


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
    step = spec.piece_positions(logits_PV.shape[1])
    pieces = [
        _reduce_piece(logits_PV[i : i + step].float(), next_ids_P[i : i + step], offsets_P[i : i + step], spec,
                      whitespace_V)
        for i in range(0, len(logits_PV), step)
    ]  # fmt: skip
    return Records(**{name: torch.cat([getattr(p, name) for p in pieces]) for name in Records.__slots__})


def _reduce_piece(
    x_PV: torch.Tensor,
    next_ids_P: torch.Tensor,
    offsets_P: torch.Tensor,
    spec: RecordSpec,
    whitespace_V: torch.Tensor,
) -> Records:
    num_ids = x_PV.shape[1]
    peak_P1 = x_PV.amax(1, keepdim=True)
    shifted_PV = x_PV - peak_P1
    exp_PV = shifted_PV.exp()
    sum_P = exp_PV.sum(1)
    if not torch.isfinite(sum_P).all():
        raise ValueError(
            "found logits that are not finite, expected finite ones: check the teacher's weights and dtype"
        )
    log_sum_P = sum_P.log()
    # E_p[x] - peak: entropy = log Z - E_p[x].
    entropy_P = (log_sum_P - (exp_PV * shifted_PV).sum(1) / sum_P).clamp_min(0)
    realised_P = shifted_PV.gather(1, next_ids_P[:, None])[:, 0] - log_sum_P
    white_P = (exp_PV @ whitespace_V / sum_P).log()
    log_z_ZP = []
    for t in spec.temperatures:
        log_z_ZP.append((shifted_PV / t).exp().sum(1).log() - log_sum_P / t)
    scalars = torch.stack((realised_P, white_P, entropy_P, *log_z_ZP), 1)

    slots = min(spec.head_slots, num_ids)
    p_PV = exp_PV.div_(sum_P[:, None])
    top_PK, ids_PK = p_PV.topk(slots, dim=1)
    kept_PK = top_PK >= spec.threshold
    kept_PK[:, 0] = True
    head_ids = torch.where(kept_PK, ids_PK, -1).int()
    head_probs = torch.where(kept_PK, top_PK, 0.0)

    # The rest in fixed point; unkept slots are put back after the scatter has cleared all of the top.
    fixed_PV = (p_PV.double() * _UNIT).round_().long()
    fixed_PV.scatter_(1, ids_PK, fixed_PV.gather(1, ids_PK).masked_fill(kept_PK, 0))
    cumulative_PV = fixed_PV.cumsum_(1)
    rest_P = cumulative_PV[:, -1]
    # As many draws as a reader expects of the stored, quantised tail: then their number costs no bytes.
    codes_P = tail_code((1 - head_probs.double().sum(1)).cpu().numpy()).clip(max=254)
    expected = expected_draws(spec.threshold, spec.tail_floor)[codes_P]
    num_draws_P = torch.from_numpy(expected).to(x_PV.device).masked_fill(rest_P == 0, 0)
    m_M = torch.arange(spec.draw_slots, dtype=torch.float64, device=x_PV.device)
    # Points lie strictly inside [0, rest): a draw never lands on an id of mass zero.
    points_PM = (offsets_P[:, None] + m_M) * (rest_P / num_draws_P.clamp_min(1))[:, None]
    points_PM = points_PM.floor().long().clamp_max((rest_P - 1).clamp_min(0)[:, None])
    draws_PM = torch.searchsorted(cumulative_PV, points_PM, right=True)
    draw_ids = torch.where(m_M < num_draws_P[:, None], draws_PM, -1).int()

    if slots < spec.head_slots:
        head_ids = torch.nn.functional.pad(head_ids, (0, spec.head_slots - slots), value=-1)
        head_probs = torch.nn.functional.pad(head_probs, (0, spec.head_slots - slots))
    return Records(head_ids=head_ids, head_probs=head_probs, draw_ids=draw_ids, scalars=scalars)
