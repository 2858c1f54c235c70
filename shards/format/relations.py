"""Query, key and value vectors of one teacher layer: the optional column group `relations`.

A relation is the softmax of the scaled inner products of the vectors of a row, within one relation head (MiniLMv2, Wang
et al. 2021). Only the vectors are stored. A relation head is a slice of the concatenated attention heads, `widths`
numbers wide, projected to at most `dims` numbers by a fixed random matrix with E[P P'] = 1: inner products are kept in
expectation, and exactly where the matrix is square. A vector is stored as int8 codes in units of its own step,
2^((scale code - 192) / 8).

Shapes: S positions with relations, A relation heads, C numbers of a position, R rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.errors import CorruptShardError, ShardError

KINDS = ("queries", "keys", "values")
"""Kinds of vectors, in the order of `widths` and of the stored values."""
SCALE_ZERO = 192
"""Scale code of step 1."""
STEPS_PER_OCTAVE = 8
"""Scale codes by which a step doubles: a vector loses at most 9 % of the range of its codes."""
LARGEST_CODE = 127
LEAST_PEAK = 117
"""Least magnitude of the largest code of a vector, unless its scale code is 0."""
MAX_HEADS = 256
MAX_WIDTH = 2**16
_REACH = 127.49
"""Largest number of steps in a vector. A decoded vector is thus encoded to the same codes."""

_Float32 = npt.NDArray[np.float32]
_Int8 = npt.NDArray[np.int8]
_Int64 = npt.NDArray[np.int64]
_Uint8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class RelationLayout:
    """What the relation columns hold."""

    layer: int
    """Layer of the teacher, from 0."""
    heads: int
    """A: number of relation heads."""
    widths: tuple[int, int, int]
    """Numbers of a relation head in the teacher, for queries, keys and values. Inner products are divided by their
    square root."""
    dims: int
    """Most numbers that are stored of a relation head."""
    seed: int
    """Seed of the projections. A reader needs no projection."""

    def __post_init__(self) -> None:
        limits = {"layer": (0, 2**16), "heads": (1, MAX_HEADS), "dims": (1, MAX_WIDTH), "seed": (0, 2**63)}
        for name, (low, high) in limits.items():
            _require_whole(name, getattr(self, name), low, high)
        if not isinstance(self.widths, tuple) or len(self.widths) != len(KINDS):
            raise ShardError(f"relations widths: found {self.widths!r}, expected one number for each of {KINDS}")
        for width in self.widths:
            _require_whole("widths", width, 1, MAX_WIDTH)

    @property
    def stored_widths(self) -> tuple[int, ...]:
        """Stored numbers of a relation head, for queries, keys and values."""
        return tuple(min(width, self.dims) for width in self.widths)

    @property
    def numbers(self) -> int:
        """C: stored numbers of a position, all kinds and heads."""
        return self.heads * sum(self.stored_widths)

    @property
    def vectors(self) -> int:
        """Stored vectors of a position: one for each kind and head."""
        return self.heads * len(KINDS)

    @property
    def column_widths(self) -> dict[str, int]:
        """Values of a position with relations in each column."""
        return {"relation_codes": self.numbers, "relation_scales": self.vectors}

    @property
    def bytes_per_position(self) -> int:
        """Bytes of a position with relations, before compression, which saves little."""
        return self.numbers + self.vectors

    def vector_widths(self) -> _Int64:
        """Return int64 [vectors]: the stored numbers of each vector of a position, in order."""
        return np.repeat(np.array(self.stored_widths, np.int64), self.heads)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "widths": list(self.widths)}

    @classmethod
    def from_dict(cls, data: Any) -> RelationLayout:
        """Read the JSON form.

        Raises:
            ShardError: If a field is missing, unknown or out of range.
        """
        try:
            return cls(**{**data, "widths": tuple(data["widths"])})
        except (TypeError, KeyError) as error:
            raise ShardError(f"layout: relations: {error}; expected layer, heads, widths, dims and seed") from None


def _require_whole(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ShardError(f"relations {name}: found {value!r}, expected a whole number from {low} to {high}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Relations:
    """The stored vectors of the rows of a chunk."""

    layout: RelationLayout
    starts: _Int64
    """[R + 1] offsets of the rows in `codes`. A row has all its positions or none."""
    codes: _Int8
    """[S, C] by position: queries, keys and values, each by head."""
    scales: _Uint8
    """[S, vectors] in the same order."""

    def row(self, r: int) -> Relations:
        """Return row `r` as relations of one row. The arrays are views."""
        rows = slice(int(self.starts[r]), int(self.starts[r + 1]))
        return replace(
            self, starts=np.array([0, rows.stop - rows.start]), codes=self.codes[rows], scales=self.scales[rows]
        )

    @property
    def row_positions(self) -> _Int64:
        """[R] number of positions with vectors of each row."""
        return np.diff(self.starts)

    def vectors(self) -> tuple[_Float32, ...]:
        """Return the queries, keys and values, each float32 [S, A, stored width]."""
        steps = np.exp2((np.arange(256) - SCALE_ZERO) / STEPS_PER_OCTAVE).astype(np.float32)
        values = self.codes.astype(np.float32)
        values *= np.repeat(steps[self.scales], self.layout.vector_widths(), axis=1)
        heads, widths = self.layout.heads, self.layout.stored_widths
        ends = np.cumsum([heads * width for width in widths])[:-1]
        return tuple(
            part.reshape(-1, heads, width) for part, width in zip(np.split(values, ends, axis=1), widths, strict=True)
        )


def has_relations(document: str, *, share: float) -> bool:
    """Return whether the rows of a document get relations: a pure function of its content.

    Args:
        document: sha256 of the document, hex.
        share: Share of documents that get relations.
    """
    digest = hashlib.sha256(f"relations/{document}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2.0**64


def encode_relations(layout: RelationLayout, vectors: _Float32) -> tuple[_Int8, _Uint8]:
    """Encode vectors.

    Args:
        layout: What a position holds.
        vectors: [S, C] in the order of `Relations.codes`.

    Returns:
        Codes [S, C] and scale codes [S, vectors].

    Raises:
        ShardError: If a number is not finite or too large.
    """
    if vectors.ndim != 2 or vectors.shape[1] != layout.numbers:
        raise ShardError(f"relations: found an array of shape {vectors.shape}, expected (positions, {layout.numbers})")
    widths = layout.vector_widths()
    firsts = np.cumsum(widths) - widths
    peaks = np.maximum.reduceat(np.abs(vectors.astype(np.float64)), firsts, axis=1)
    if not np.isfinite(peaks).all():
        raise ShardError("relations: found values that are not finite, expected finite ones; check the teacher's dtype")
    with np.errstate(divide="ignore"):
        scales = np.ceil(STEPS_PER_OCTAVE * np.log2(peaks / _REACH)) + SCALE_ZERO
    if scales.size and scales.max() > 255:
        raise ShardError(f"relations: found a number of {peaks.max():g}, expected at most {_largest_number():g}")
    scales = np.maximum(scales, 0)
    steps = np.exp2((scales - SCALE_ZERO) / STEPS_PER_OCTAVE)
    codes = np.rint(vectors / np.repeat(steps, widths, axis=1))
    return codes.astype(np.int8), scales.astype(np.uint8)


def decode_relations(
    layout: RelationLayout,
    columns: Mapping[str, npt.NDArray[np.generic]],
    lengths: Mapping[str, npt.NDArray[np.integer]],
    positions: _Int64,
) -> Relations:
    """Decode the two columns of a chunk.

    Args:
        layout: What a position holds.
        columns: Values of the columns, flat over all rows.
        lengths: [R] number of values of each row in each column.
        positions: [R] number of positions of each row.

    Raises:
        CorruptShardError: If a row has relations for some of its positions, or the columns differ in their rows.
    """
    counts = np.where(lengths["relation_codes"] > 0, positions, 0)
    for name, width in layout.column_widths.items():
        if not np.array_equal(lengths[name], counts * width):
            raise CorruptShardError(
                f"{name}: found rows of {lengths[name].tolist()[:8]} values, expected {width} for each position or none"
            )
    return Relations(
        layout=layout,
        starts=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        codes=columns["relation_codes"].astype(np.int8, copy=False).reshape(-1, layout.numbers),
        scales=columns["relation_scales"].astype(np.uint8, copy=False).reshape(-1, layout.vectors),
    )


def relation_problems(relations: Relations) -> Iterator[str]:
    """Yield each violated invariant of stored vectors, in a few words."""
    widths = relations.layout.vector_widths()
    if not relations.codes.size:
        return
    if relations.codes.min() < -LARGEST_CODE:
        yield f"relation_codes: {relations.codes.min()}, expected at least {-LARGEST_CODE}"
    peaks = np.maximum.reduceat(np.abs(relations.codes.astype(np.int16)), np.cumsum(widths) - widths, axis=1)
    if ((peaks < LEAST_PEAK) & (relations.scales > 0)).any():
        yield f"relation_codes: a vector whose largest code is below {LEAST_PEAK}, and its scale code is not 0"


def _largest_number() -> float:
    return float(_REACH * 2 ** ((255 - SCALE_ZERO) / STEPS_PER_OCTAVE))
