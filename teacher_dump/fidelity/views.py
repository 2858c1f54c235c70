"""Views of P positions in float64: their records, and the exact distribution.

Shapes: P positions, V vocabulary, Z temperatures. Entries of heads and draws are flat, as in
`shards.format.chunk.Chunk`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from shards.format.batch import Row
from shards.format.chunk import Chunk

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordView:
    """Records of P positions, stored or fresh from an engine."""

    head_starts: Int64
    """[P + 1]"""
    head_ids: Int64
    head_probs: Float64
    tail: Float64
    """[P], mass outside the head."""
    draw_starts: Int64
    """[P + 1]"""
    draw_ids: Int64
    label_logp: Float64
    """[P]"""
    whitespace: Float64
    """[P], mass, not its log."""
    entropy: Float64
    """[P], nats."""
    log_z: Float64
    """[P, Z]"""

    @classmethod
    def from_chunk(cls, chunk: Chunk) -> RecordView:
        """Take stored records."""
        return cls(
            head_starts=chunk.head_starts,
            head_ids=chunk.head_ids.astype(np.int64),
            head_probs=chunk.head_probs.astype(np.float64),
            tail=chunk.tail_mass.astype(np.float64),
            draw_starts=chunk.draw_starts,
            draw_ids=chunk.draw_ids.astype(np.int64),
            label_logp=chunk.label_logp.astype(np.float64),
            whitespace=np.exp(chunk.whitespace_logp.astype(np.float64)),
            entropy=chunk.entropy.astype(np.float64),
            log_z=chunk.log_z.astype(np.float64),
        )

    @classmethod
    def from_row(cls, row: Row) -> RecordView:
        """Take records from an engine, before quantisation."""
        owner = np.repeat(np.arange(len(row.head_count)), row.head_count)
        probs = row.head_probs.astype(np.float64)
        return cls(
            head_starts=_starts(row.head_count),
            head_ids=row.head_ids.astype(np.int64),
            head_probs=probs,
            tail=np.clip(1 - np.bincount(owner, probs, len(row.head_count)), 0, 1),
            draw_starts=_starts(row.draw_count),
            draw_ids=row.draw_ids.astype(np.int64),
            label_logp=row.label_logp.astype(np.float64),
            whitespace=np.exp(row.whitespace_logp.astype(np.float64)),
            entropy=row.entropy.astype(np.float64),
            log_z=row.log_z.astype(np.float64),
        )

    def slice(self, start: int, stop: int) -> RecordView:
        """Return positions `start` to `stop`."""
        heads = slice(int(self.head_starts[start]), int(self.head_starts[stop]))
        draws = slice(int(self.draw_starts[start]), int(self.draw_starts[stop]))
        return RecordView(
            head_starts=self.head_starts[start : stop + 1] - heads.start,
            head_ids=self.head_ids[heads],
            head_probs=self.head_probs[heads],
            tail=self.tail[start:stop],
            draw_starts=self.draw_starts[start : stop + 1] - draws.start,
            draw_ids=self.draw_ids[draws],
            label_logp=self.label_logp[start:stop],
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
class ExactDistribution:
    """The whole distribution at P positions."""

    p: Float64
    """[P, V]"""
    log_p: Float64
    """[P, V]"""
    label_logp: Float64
    """[P]"""
    whitespace: Float64
    """[P], mass."""
    entropy: Float64
    """[P], nats."""
    log_z: Float64
    """[P, Z]"""

    @classmethod
    def from_logits(
        cls, logits: torch.Tensor, labels: Int64, temperatures: tuple[float, ...], whitespace: torch.Tensor
    ) -> ExactDistribution:
        """Compute the distribution in float64.

        Args:
            logits: [P, V].
            labels: Ids of the next tokens, [P].
            temperatures: Temperatures of `log_z`, Z of them.
            whitespace: Mask [V] of the ids that count as whitespace.
        """
        log_p = torch.log_softmax(logits.double(), 1)
        p = log_p.exp()
        entropy = -(p * log_p.clamp_min(-1e4)).sum(1)
        log_z = torch.stack([(log_p / t).logsumexp(1) for t in temperatures], 1)
        return cls(
            p=p.cpu().numpy(),
            log_p=log_p.cpu().numpy(),
            label_logp=log_p.cpu().numpy()[np.arange(len(labels)), labels],
            whitespace=(p @ whitespace.to(p)).cpu().numpy(),
            entropy=entropy.cpu().numpy(),
            log_z=log_z.cpu().numpy(),
        )


def _starts(counts: Int64) -> Int64:
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
