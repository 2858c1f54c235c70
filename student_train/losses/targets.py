"""Targets of each position: sparse records of several rows as padded tensors.

Column 0 of a position is its label. Then come the other ids of the head, then drawn ids that are neither. The ids of a
position are unique except for padding, which repeats column 0 with weight zero. So two writes through `ids_PK` to the
same place write the same value, and no result depends on their order.

Ids that the student lacks (id >= V) are never indexed. The mass of such a head id joins the tail; such a draw leaves
the mass of the tail to the other draws. Records are not checked here: `shards` checks digests, and the writer values.

Shapes: R rows, P positions, K columns (entries of a position, padded to the longest), V vocabulary size of the student.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from shards.format.chunk import Chunk
from student_train.data.row_labels import first_label, num_skipped
from student_train.errors import TrainError
from student_train.losses.random_sampling import resample, uniforms

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetSpec:
    """Settings of the targets."""

    vocab_size: int
    """V: ids that the student has."""
    target_kind: str
    """Which targets the loss needs.

    `linear`: head and draws. `bucket`: head, and the mass outside it. `specialist`: the ids of `subset`, and one class
    for all others. `none`: the label only. For comparison: `top-k`, the renormalised head (biased), and `rs-kd`,
    `rs_draws` ids drawn anew from head and draws (`random_sampling.py`).
    """
    temperature: float = 1.0
    """Temperature of the targets."""
    temperature_column: int | None = None
    """Column of `log_z` that holds the temperature; None for temperature 1."""
    skip: int = 0
    """Number of prefix tokens after a row's first token; they are no text and no labels."""
    subset: tuple[int, ...] = ()
    """Ids of a specialist."""
    rs_draws: int = 50
    """Draws of a position for `rs-kd`."""
    seed: int = 0
    """Seed of these draws."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """Targets of P positions, on one device."""

    ids_PK: torch.Tensor
    """int64 ids of the entries; column 0 is the label."""
    valid_PK: torch.Tensor
    """bool; False for padding."""
    head_PK: torch.Tensor
    """bool; whether the id is in the head. Padding repeats column 0."""
    teacher_PK: torch.Tensor
    """float32 teacher's probability of head ids at the temperature; 0 for others."""
    weight_PK: torch.Tensor
    """float32 weight in the linear loss: head probabilities, and the shares that draws have of the tail."""
    tail_P: torch.Tensor
    """float32 mass outside the head at the temperature."""
    bucket_P: torch.Tensor
    """float32 mass of the tail where no draw carries it; 0 where draws do."""
    constant_P: torch.Tensor
    """float32 entropy to subtract from the linear loss: of the full distribution, or of head and bucket."""
    top_P: torch.Tensor
    """int64 teacher's most probable id; -1 where the head is empty."""

    def to(self, device: torch.device) -> Targets:
        """Return the targets on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def slice(self, start: int, stop: int) -> Targets:
        """Return views of the positions start:stop."""
        return self._map(lambda tensor: tensor[start:stop])

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Targets:
        return Targets(**{field.name: function(getattr(self, field.name)) for field in fields(self)})

    def __len__(self) -> int:
        return len(self.tail_P)

    @property
    def counts(self) -> dict[str, int]:
        """Number of terms of each part of the loss."""
        return {"kd": len(self), "ce": len(self)}


def no_targets() -> Targets:
    """Return the targets of no position."""
    return labels_only(np.zeros(0, dtype=np.int64))


class _Entries(NamedTuple):
    """Entries of all positions."""

    position: Int64
    ids: Int64
    value: Float64


def targets_of(rows: list[Chunk], spec: TargetSpec) -> Targets:
    """Return the targets of all positions of `rows`, row after row.

    Args:
        rows: Chunks of one row each.
        spec: Settings of the targets.

    Raises:
        TrainError: A label is an id that the student lacks.
    """
    label_P = _labels(rows, spec)
    if spec.target_kind == "none":
        return labels_only(label_P)
    stored = _entries(rows, spec.skip, "head_starts", "head_ids", "head_probs")
    top_P = np.full(len(label_P), -1, dtype=np.int64)
    position, first = np.unique(stored.position, return_index=True)
    top_P[position] = stored.ids[first]
    head = _head(rows, stored, spec)
    tail_P = np.maximum(1.0 - _sum_at(head.position, head.value, len(label_P)), 0.0)
    if spec.target_kind == "specialist":
        return _specialist(label_P, spec.subset, head, _draws(rows, tail_P, spec), top_P=top_P)
    draws, weight, bucket_P, constant_P = _linear_weights(rows, head, tail_P, spec)
    return _pad(
        label_P,
        position=np.concatenate([head.position, draws.position]),
        ids=np.concatenate([head.ids, draws.ids]),
        teacher=np.concatenate([head.value, np.zeros(len(draws.position))]),
        weight=np.concatenate([weight, draws.value]),
        is_head=np.arange(len(head.position) + len(draws.position)) < len(head.position),
        per_position={"tail_P": tail_P, "bucket_P": bucket_P, "constant_P": constant_P},
        top_P=top_P,
    )


def labels_only(label_P: Int64) -> Targets:
    """Return targets without a teacher: the labels of the positions."""
    count = len(label_P)
    zeros_PK, zeros_P = torch.zeros(count, 1), torch.zeros(count)
    return Targets(
        ids_PK=torch.from_numpy(label_P[:, None].copy()),
        valid_PK=torch.ones(count, 1, dtype=torch.bool),
        head_PK=torch.zeros(count, 1, dtype=torch.bool),
        teacher_PK=zeros_PK,
        weight_PK=zeros_PK,
        tail_P=zeros_P,
        bucket_P=zeros_P,
        constant_P=zeros_P,
        top_P=torch.full((count,), -1, dtype=torch.int64),
    )


def _labels(rows: list[Chunk], spec: TargetSpec) -> Int64:
    for row in rows:
        if len(row.tokens) and int(row.tokens.max()) >= spec.vocab_size:
            info = row.rows[0]
            raise TrainError(
                f"document {info.document[:12]} window {info.window} holds token {int(row.tokens.max())}; the "
                f"student has {spec.vocab_size} ids; choose a student with the shards' tokenizer"
            )
    return np.concatenate([row.tokens[first_label(row, skip=spec.skip) :].astype(np.int64) for row in rows])


def _entries(rows: list[Chunk], skip: int, starts: str, ids: str, values: str | None) -> _Entries:
    """Return the entries of the rows' ragged arrays at the positions with a label."""
    positions, all_ids, all_values, base = [], [], [], 0
    for row in rows:
        offsets = getattr(row, starts)[num_skipped(row, skip=skip) :]
        entries = slice(int(offsets[0]), int(offsets[-1]))
        positions.append(base + np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)))
        all_ids.append(getattr(row, ids)[entries])
        if values is not None:
            all_values.append(getattr(row, values)[entries])
        base += len(offsets) - 1
    value = np.concatenate(all_values) if all_values else np.zeros(0)
    return _Entries(np.concatenate(positions).astype(np.int64), np.concatenate(all_ids).astype(np.int64), value)


def _head(rows: list[Chunk], stored: _Entries, spec: TargetSpec) -> _Entries:
    """Return the head ids that the student has, with the teacher's probabilities at the temperature."""
    known = stored.ids < spec.vocab_size
    position, prob = stored.position[known], stored.value[known].astype(np.float64)
    if spec.temperature != 1.0:
        log_z_PZ = np.concatenate([row.log_z[num_skipped(row, skip=spec.skip) :] for row in rows])
        log_z_P = log_z_PZ[:, spec.temperature_column].astype(np.float64)
        prob = np.exp(np.log(prob) / spec.temperature - log_z_P[position])
    return _Entries(position, stored.ids[known], prob)


def _draws(rows: list[Chunk], tail_P: Float64, spec: TargetSpec) -> _Entries:
    """Return the distinct drawn ids that the student has; the weights of a position sum to its tail."""
    drawn = _entries(rows, spec.skip, "draw_starts", "draw_ids", None)
    known = drawn.ids < spec.vocab_size
    position, ids = drawn.position[known], drawn.ids[known]
    num_draws_P = np.bincount(position, minlength=len(tail_P))
    key, repeats = np.unique(position << 32 | ids, return_counts=True)
    position, ids = key >> 32, key & 0xFFFFFFFF
    return _Entries(position, ids, tail_P[position] * repeats / num_draws_P[position])


def _linear_weights(
    rows: list[Chunk], head: _Entries, tail_P: Float64, spec: TargetSpec
) -> tuple[_Entries, Float64, Float64, Float64]:
    """Return the draws with their weights, the weights of the head, `bucket_P` and `constant_P`."""
    no_draws = _Entries(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    entropy_P = np.concatenate([row.entropy[num_skipped(row, skip=spec.skip) :] for row in rows]).astype(np.float64)
    if spec.target_kind == "bucket":
        return no_draws, head.value, tail_P.copy(), entropy_P
    if spec.target_kind == "top-k":
        mass_P = np.maximum(_sum_at(head.position, head.value, len(tail_P)), 1e-30)
        weight = head.value / mass_P[head.position]
        return no_draws, weight, np.zeros(len(tail_P)), -_sum_at(head.position, _xlogx(weight), len(tail_P))
    draws = _draws(rows, tail_P, spec)
    has_draws_P = np.zeros(len(tail_P), dtype=bool)
    has_draws_P[draws.position] = True
    bucket_P = np.where(has_draws_P, 0.0, tail_P)
    # Where no draw carries the tail, the loss is a KL of head and bucket; with their entropy its minimum is zero.
    bucket_entropy_P = -_sum_at(head.position, _xlogx(head.value), len(tail_P)) - _xlogx(tail_P)
    entropy_P = np.where(has_draws_P, entropy_P, bucket_entropy_P)
    if spec.target_kind == "linear":
        return draws, head.value, bucket_P, entropy_P
    share, bucket_P = resample(
        np.concatenate([head.position, draws.position]),
        np.concatenate([head.value, draws.value]),
        bucket_P,
        uniforms(rows, seed=spec.seed, num_draws=spec.rs_draws, skip=spec.skip),
    )
    num_head = len(head.position)
    return draws._replace(value=share[num_head:]), share[:num_head], bucket_P, entropy_P


def _specialist(label_P: Int64, subset: tuple[int, ...], head: _Entries, draws: _Entries, *, top_P: Int64) -> Targets:
    """Return targets with the whole subset as the head of every position, and one class for all other ids as its tail.

    The weights come from head and draws, so they are unbiased for each id.
    """
    count = len(label_P)
    subset_ids = np.asarray(sorted(subset), dtype=np.int64)
    position, ids, weight = (np.concatenate(pair) for pair in zip(head, draws, strict=True))
    column = np.searchsorted(subset_ids, ids)
    inside = (column < len(subset_ids)) & (subset_ids[np.minimum(column, len(subset_ids) - 1)] == ids)
    dense = np.zeros((count, len(subset_ids)))
    dense[position[inside], column[inside]] = weight[inside]
    rest_P = np.maximum(1.0 - dense.sum(1), 0.0)
    return _pad(
        label_P,
        position=np.repeat(np.arange(count), len(subset_ids)),
        ids=np.tile(subset_ids, count),
        teacher=dense.reshape(-1),
        weight=dense.reshape(-1),
        is_head=np.ones(count * len(subset_ids), dtype=bool),
        per_position={
            "tail_P": rest_P,
            "bucket_P": rest_P,
            "constant_P": -_xlogx(dense).sum(1) - _xlogx(rest_P),
        },
        top_P=top_P,
    )


def _pad(
    label_P: Int64,
    *,
    position: Int64,
    ids: Int64,
    teacher: Float64,
    weight: Float64,
    is_head: npt.NDArray[np.bool_],
    per_position: dict[str, Float64],
    top_P: Int64,
) -> Targets:
    """Return entries as padded tensors; `per_position` has the float32 fields of shape [P]."""
    count = len(label_P)
    column, width = _columns(label_P, position=position, ids=ids)
    ids_PK = np.repeat(label_P[:, None], width, axis=1)
    valid_PK = np.zeros((count, width), dtype=bool)
    head_PK = np.zeros((count, width), dtype=bool)
    teacher_PK = np.zeros((count, width), dtype=np.float32)
    weight_PK = np.zeros((count, width), dtype=np.float32)
    valid_PK[:, 0] = True
    valid_PK[position, column] = True
    ids_PK[position, column] = ids
    head_PK[position, column] = is_head
    teacher_PK[position, column] = teacher
    weight_PK[position, column] = weight
    head_PK |= ~valid_PK & head_PK[:, :1]
    return Targets(
        ids_PK=torch.from_numpy(ids_PK),
        valid_PK=torch.from_numpy(valid_PK),
        head_PK=torch.from_numpy(head_PK),
        teacher_PK=torch.from_numpy(teacher_PK),
        weight_PK=torch.from_numpy(weight_PK),
        top_P=torch.from_numpy(top_P),
        **{name: torch.from_numpy(value.astype(np.float32)) for name, value in per_position.items()},
    )


def _columns(label_P: Int64, *, position: Int64, ids: Int64) -> tuple[Int64, int]:
    """Return the column of each entry, and the number of columns; column 0 is the label's."""
    is_other = ids != label_P[position]
    order = np.argsort(position, kind="stable")
    order = order[is_other[order]]
    counts_P = np.bincount(position[order], minlength=len(label_P))
    starts_P = np.cumsum(counts_P) - counts_P
    column = np.zeros(len(position), dtype=np.int64)
    column[order] = np.arange(len(order)) - np.repeat(starts_P, counts_P) + 1
    return column, 1 + int(counts_P.max(initial=0))


def _sum_at(position: Int64, value: Float64, count: int) -> Float64:
    sums: Float64 = np.asarray(np.bincount(position, weights=value, minlength=count), dtype=np.float64)
    return sums


def _xlogx(p: Float64) -> Float64:
    product: Float64 = p * np.log(np.maximum(p, 1e-300))
    return product
