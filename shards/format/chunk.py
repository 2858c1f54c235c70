"""A decoded chunk: rows as flat numpy arrays, for training.

A *row* is one window of one document, or a conversation up to the end of a response. A *position* is one next-token
prediction: a row of n tokens, the first `context` of which have no position, has n - context positions, and position j
predicts token context + j of the row from all tokens before it. A window of a document has context 1.
docs/concepts.md defines the other terms.

Shapes: N tokens, R rows, P = N - sum of contexts positions, E head entries, D draws, Z temperatures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.format.relations import Relations

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class RowInfo:
    """The origin of a row."""

    document: str
    """sha256 of the document's UTF-8 bytes, hex. The document of a response is `messages`."""
    window: int
    """Index of the window in its document, or of the response among the responses to `messages`."""
    byte_start: int
    """First byte of the document in the row; 0 for a response."""
    byte_end: int
    """End of the document's bytes in the row, exclusive. For a response: the bytes of its text, without the
    end-of-turn token."""
    source: str
    """Repository, data set or package of the document."""
    path: str
    """Path of the document within `source`."""
    licence: str
    """SPDX identifier, "" if unknown."""
    context: int = 1
    """Number of leading tokens without a position, at least 1."""
    messages: str = ""
    """The conversation up to the response, as `shards.format.messages.messages_json` writes it; "" for a document."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """The decoded rows of a chunk. All arrays are C-contiguous and read-only by convention."""

    rows: tuple[RowInfo, ...]
    """R origins, in the order of the arrays."""
    row_starts: Int64
    """[R + 1] offsets of the rows in `tokens`: row r is `tokens[row_starts[r]:row_starts[r + 1]]`."""
    tokens: Int32
    """[N] token ids. Each row begins with the prefix tokens of the manifest, which are context and not text."""
    label_logp: Float32
    """[P] natural log of the teacher's probability of the label, the token that the text has, whatever its rank."""
    head_starts: Int64
    """[P + 1] offsets of the positions in `head_ids` and `head_probs`."""
    head_ids: Int32
    """[E] ids with a stored probability, by falling probability within a position."""
    head_probs: Float32
    """[E] their probabilities. With `tail_mass`, those of a position sum to exactly 1 in float32."""
    tail_mass: Float32
    """[P] probability outside the head, tau."""
    draw_starts: Int64
    """[P + 1] offsets of the positions in `draw_ids`."""
    draw_ids: Int32
    """[D] ids drawn from the tail, ascending, with repeats. Each has the weight tail_mass / number of draws."""
    log_z: Float32
    """[P, Z] log of the sum of p^(1/T) over the vocabulary, for each temperature of the manifest."""
    whitespace_logp: Float32
    """[P] natural log of the mass on tokens that begin with a whitespace byte or end the text."""
    entropy: Float32
    """[P] entropy of the teacher's whole distribution, in nats."""
    relations: Relations | None = None
    """Vectors of one layer for some of the rows; None if the cache has none."""

    @property
    def contexts(self) -> Int64:
        """[R] number of leading tokens of each row without a position."""
        return contexts_of(self.rows)

    @property
    def position_starts(self) -> Int64:
        """[R + 1] offsets of the rows in the per-position arrays."""
        starts = self.row_starts.copy()
        starts[1:] -= np.cumsum(self.contexts)
        return starts

    @property
    def is_label(self) -> Bool:
        """[N] whether a token is the label of a position. The other tokens are context."""
        return label_mask(np.diff(self.row_starts), self.contexts)

    @property
    def labels(self) -> Int32:
        """[P] label of each position."""
        return self.tokens[self.is_label]

    def row(self, r: int) -> Chunk:
        """Return row `r` as a chunk of one row. Its arrays are views, except for offsets."""
        first, last = (int(x) for x in self.row_starts[r : r + 2])
        start, stop = (int(x) for x in self.position_starts[r : r + 2])
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
            relations=None if self.relations is None else self.relations.row(r),
        )


def contexts_of(rows: Sequence[RowInfo]) -> Int64:
    """Return int64 [R]: the number of leading tokens of each row without a position."""
    return np.fromiter((row.context for row in rows), np.int64, len(rows))


def label_mask(row_tokens: Int64, contexts: Int64) -> Bool:
    """Return bool [N]: whether a token is the label of a position.

    Args:
        row_tokens: [R] number of tokens of each row.
        contexts: [R] number of leading tokens of each row without a position, at most `row_tokens`.
    """
    lengths = np.stack((contexts, row_tokens - contexts), 1).ravel()
    return np.repeat(np.tile(np.array([False, True]), len(contexts)), lengths)
