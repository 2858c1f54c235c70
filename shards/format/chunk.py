"""What does a reader get? One chunk of rows as flat numpy arrays, ready for training.

Words (docs/format.md): a *row* is one window of one document; a *position* is one next-token prediction. A row
of n tokens has n - 1 positions: position j of a row predicts token j + 1 of that row from tokens 0..j.

Shapes: N tokens, R rows, P = N - R positions, E head entries, D draws, Z temperatures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class RowInfo:
    """Where does a row come from?"""

    document: str
    """sha256 of the document's UTF-8 bytes, hex."""
    window: int
    """Number of this window within its document, from 0."""
    byte_start: int
    """First byte of the document that the row covers."""
    byte_end: int
    """One past the last byte of the document that the row covers."""
    source: str
    """Repository, data set or package that the document is from."""
    path: str
    """Path of the document within `source`."""
    licence: str
    """SPDX identifier, or "" where it is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Rows of one chunk, decoded. All arrays are C-contiguous and must not be written to."""

    rows: tuple[RowInfo, ...]
    """R entries, in the order of the arrays."""
    row_starts: Int64
    """[R + 1] offsets of the rows in `tokens`; row r holds tokens row_starts[r]:row_starts[r + 1]."""
    tokens: Int32
    """[N] token ids; each row begins with the manifest's prefix tokens (context, not text)."""
    label_logp: Float32
    """[P] natural log of the teacher's probability of the token that the text contains, whatever its rank."""
    head_starts: Int64
    """[P + 1] offsets of the positions in `head_ids` and `head_probs`."""
    head_ids: Int32
    """[E] ids whose probability is stored, largest probability first within a position."""
    head_probs: Float32
    """[E] their probabilities. `head_probs` of a position and its `tail_mass` sum to exactly one in float32."""
    tail_mass: Float32
    """[P] probability outside the head: tau."""
    draw_starts: Int64
    """[P + 1] offsets of the positions in `draw_ids`."""
    draw_ids: Int32
    """[D] ids drawn from outside the head, ascending, repeats possible; each weighs tail_mass / number of draws."""
    log_z: Float32
    """[P, Z] log of sum over the vocabulary of p^(1/T), for the manifest's temperatures, in their order."""
    whitespace_logp: Float32
    """[P] natural log of the mass on tokens that begin with a whitespace byte, or end the text."""
    entropy: Float32
    """[P] entropy of the teacher's full distribution, in nats."""

    @property
    def position_starts(self) -> Int64:
        """[R + 1] offsets of the rows in the per-position arrays."""
        return self.row_starts - np.arange(len(self.row_starts), dtype=np.int64)

    def row(self, r: int) -> Chunk:
        """Return row `r` alone, as a chunk of one row whose arrays are views."""
        first, last = (int(x) for x in self.row_starts[r : r + 2])
        start, stop = first - r, last - r - 1
        heads = slice(int(self.head_starts[start]), int(self.head_starts[stop]))
        draws = slice(int(self.draw_starts[start]), int(self.draw_starts[stop]))
        return Chunk(
            rows=self.rows[r : r + 1],
            row_starts=self.row_starts[r : r + 2] - first,
            tokens=self.tokens[first:last],
            label_logp=self.label_logp[start:stop],
            head_starts=self.head_starts[start : stop + 1] - heads.start,
            head_ids=self.head_ids[heads],
            head_probs=self.head_probs[heads],
            tail_mass=self.tail_mass[start:stop],
            draw_starts=self.draw_starts[start : stop + 1] - draws.start,
            draw_ids=self.draw_ids[draws],
            log_z=self.log_z[start:stop],
            whitespace_logp=self.whitespace_logp[start:stop],
            entropy=self.entropy[start:stop],
        )
