"""Sparse records of next-token distributions: specification, in-memory form and packed form.

A record of a position has a head (token ids of large probability), draws (token ids sampled from the rest) and scalars.
`docs/format.md` defines the fields. Engines return packed records: one int32 tensor per window, which crosses process
boundaries without further serialisation.

Shapes: P positions, K head slots, M draw slots, Z temperatures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shards.format.batch import Row
from teacher_dump.tasks.windowing import Window

if TYPE_CHECKING:
    import torch

LOGITS_BYTES = 64 * 2**20
"""Largest float32 block of logits that an engine computes at once. Smaller blocks read the weights of the output
projection more often; larger ones exceed the limit of 256 MiB of extra memory."""

Packed = npt.NDArray[np.int32]
"""Records of one window, int32 [P, columns]: see `Records.pack`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordSpec:
    """What the records of a cache contain."""

    threshold: float = 0.04
    """Ids of at least this probability are in the head. It trades bytes for error (docs/decisions)."""
    tail_floor: float = 2e-3
    """Tail mass below which no draws are taken."""
    temperatures: tuple[float, ...] = (1.5, 2.0, 4.0)
    """Temperatures T that log Z_T is stored for. T = 1 is left out: log Z_1 = 0."""

    def __post_init__(self) -> None:
        if not 0.001 <= self.threshold <= 0.5:
            raise ValueError(f"threshold: found {self.threshold}, expected between 0.001 and 0.5")
        if not 0 < self.tail_floor <= self.threshold:
            raise ValueError(f"tail_floor: found {self.tail_floor}, expected above 0, at most the threshold")
        if any(t <= 0 or t == 1 for t in self.temperatures):
            raise ValueError(f"temperatures: found {self.temperatures}, expected positive and other than 1")

    @property
    def head_slots(self) -> int:
        """Largest number of ids that can reach the threshold, K."""
        return int(1 / self.threshold + 1e-9)

    @property
    def draw_slots(self) -> int:
        """Largest number of draws of a position, M: those of a tail of mass 1."""
        return int(np.ceil(1 / self.threshold - 1e-9))

    @property
    def columns(self) -> int:
        """Width of packed records."""
        return 2 * self.head_slots + self.draw_slots + 3 + len(self.temperatures)

    @property
    def column_slices(self) -> tuple[slice, slice, slice, slice]:
        """Columns of the head ids, head probabilities, draw ids and scalars in packed records."""
        heads, draws = self.head_slots, self.draw_slots
        scalars = 2 * heads + draws
        return slice(0, heads), slice(heads, 2 * heads), slice(2 * heads, scalars), slice(scalars, self.columns)

    @staticmethod
    def block_positions(vocab_size: int) -> int:
        """Return the number of positions whose logits are computed at once."""
        return max(1, LOGITS_BYTES // (4 * vocab_size))


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """Records of P positions as tensors of fixed width. Unused slots hold -1."""

    head_ids: torch.Tensor
    """int32 [P, K], largest probability first."""
    head_probs: torch.Tensor
    """float32 [P, K], 0 in unused slots."""
    draw_ids: torch.Tensor
    """int32 [P, M], ascending, with repeats; unused slots are last."""
    scalars: torch.Tensor
    """float32 [P, 3 + Z]: log-probability of the label, log of the whitespace mass, entropy, then log Z_T."""

    def pack(self) -> torch.Tensor:
        """Concatenate all fields to int32 [P, columns]. Floats keep their bits."""
        import torch

        return torch.cat(
            (self.head_ids, self.head_probs.view(torch.int32), self.draw_ids, self.scalars.view(torch.int32)),
            1,
        )

    @classmethod
    def unpack(cls, packed: torch.Tensor, spec: RecordSpec) -> Records:
        """Invert `pack`."""
        import torch

        head_ids, head_probs, draw_ids, scalars = (packed[:, columns] for columns in spec.column_slices)
        return cls(
            head_ids=head_ids,
            head_probs=head_probs.contiguous().view(torch.float32),
            draw_ids=draw_ids,
            scalars=scalars.contiguous().view(torch.float32),
        )


def to_row(window: Window, packed: Packed, spec: RecordSpec) -> Row:
    """Convert the packed records of a window to a row of a shard: fixed-width slots become lists of the used ones.

    Columns beyond `spec.columns` are the bits of float32 vectors, see `with_relations`.
    """
    head_ids, head_bits, draw_ids, scalar_bits = (packed[:, columns] for columns in spec.column_slices)
    head_probs = np.ascontiguousarray(head_bits).view(np.float32)
    scalars = np.ascontiguousarray(scalar_bits).view(np.float32)
    relation_bits = packed[:, spec.columns :]
    in_head, is_draw = head_ids >= 0, draw_ids >= 0
    return Row(
        info=window.info,
        tokens=window.tokens,
        head_count=in_head.sum(1),
        head_ids=head_ids[in_head],
        head_probs=head_probs[in_head],
        draw_count=is_draw.sum(1),
        draw_ids=draw_ids[is_draw],
        label_logp=scalars[:, 0],
        whitespace_logp=scalars[:, 1],
        entropy=scalars[:, 2],
        log_z=scalars[:, 3:],
        relations=np.ascontiguousarray(relation_bits).view(np.float32) if relation_bits.shape[1] else None,
    )


def with_relations(packed: Packed, vectors: npt.NDArray[np.float32]) -> Packed:
    """Return packed records with the bits of vectors, [P, C], as further columns."""
    return np.concatenate((packed, vectors.view(np.int32)), 1)


def draw_offsets(document: str, window: int, seed: int, num_positions: int) -> npt.NDArray[np.float64]:
    """Return the sampling offset of each position of a window, float64 [num_positions] in [0, 1).

    A counter-based generator (Philox) is keyed by document, window and seed, and read in the order of the positions.
    The draws therefore depend neither on batching nor on the worker nor on a restart.

    Args:
        document: Digest of the document.
        window: Index of the window in the document.
        seed: Seed of the dump.
        num_positions: Number of positions, counted from the first one of the window.
    """
    key = hashlib.sha256(f"{document}/{window}/{seed}".encode()).digest()
    words = np.frombuffer(key, dtype="<u8", count=2)
    return np.random.Generator(np.random.Philox(key=words)).random(num_positions)


def whitespace_mask(vocab_size: int, whitespace_ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return float32 [vocab_size]: 1 for `whitespace_ids`, 0 elsewhere."""
    mask = np.zeros(vocab_size, np.float32)
    mask[list(whitespace_ids)] = 1
    return mask
