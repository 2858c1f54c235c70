"""What does each position aim at? Sparse records of several rows as padded tensors.

Shapes: R rows, P positions, K columns (entries of a position, padded to the longest), V the student's vocabulary.

Column 0 is the realised token, then come the head's other ids, then the drawn ids that are neither. Ids of a position
are unique, but for padding, which repeats column 0 with weight zero: so whatever is written through `ids_PK` twice is
written with one value, and no result depends on the order of writes.

Ids that the student lacks (id >= V) are never indexed: a head id's mass joins the tail, a drawn id leaves the others
to carry the tail's mass. NOT checked here: that the records are sane; `shards` checks digests, the writer values.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch

from shards.format.chunk import Chunk
from student_train.errors import TrainError
from student_train.losses.random_sampling import resampled, uniforms

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """Targets of P positions; all tensors on one device."""

    ids_PK: torch.Tensor
    """int64; see the file's head."""
    valid_PK: torch.Tensor
    """bool; False for padding."""
    head_PK: torch.Tensor
    """bool; the id is in the head. Padding repeats column 0."""
    teacher_PK: torch.Tensor
    """float32; the teacher's probability of head ids at the chosen temperature, 0 elsewhere."""
    weight_PK: torch.Tensor
    """float32; target weights of the linear loss: head probabilities, and the draws' shares of the tail."""
    tail_P: torch.Tensor
    """float32; mass outside the head at the chosen temperature."""
    bucket_P: torch.Tensor
    """float32; the tail's mass where no draw carries it, 0 where draws do."""
    constant_P: torch.Tensor
    """float32; entropy to subtract from the linear loss: of the full distribution, or of head and bucket."""
    top_P: torch.Tensor
    """int64; the teacher's most probable id, -1 where the head is empty."""

    def to(self, device: torch.device) -> Targets:
        """Return the targets on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def slice(self, start: int, stop: int) -> Targets:
        """Return positions start:stop, as views."""
        return self._map(lambda tensor: tensor[start:stop])

    def _map(self, function) -> Targets:  # type: ignore[no-untyped-def]
        return Targets(**{field.name: function(getattr(self, field.name)) for field in fields(self)})

    def __len__(self) -> int:
        return len(self.tail_P)


def targets_of(
    rows: list[Chunk],
    *,
    vocab_size: int,
    target_kind: str,
    temperature: float = 1.0,
    temperature_column: int | None = None,
    skip: int = 0,
    subset: tuple[int, ...] = (),
    rs_draws: int = 50,
    seed: int = 0,
) -> Targets:
    """Return the targets of all positions of `rows`, row after row.

    `rows` are chunks of one row each. `target_kind` is `linear` (head and draws), `bucket` (head and the
    mass outside it), `top-k` (the head renormalised, biased, for comparison), `rs-kd` (`rs_draws` ids drawn anew from
    head and draws, see `resample.py`, for comparison), `specialist` (the ids of `subset`, and all others as one class)
    or `none` (the realised token only). `temperature_column` is where `log_z` holds the
    temperature. `skip` leaves out each row's first positions: those that predict prefix tokens, which are not text.

    Raises: TrainError for a realised token that the student lacks.
    """
    realised = _realised(rows, vocab_size=vocab_size, skip=skip)
    count = len(realised)
    if target_kind == "none":
        return _realised_only(realised)

    head_at, head_id, head_p = _entries(rows, skip, "head_starts", "head_ids", "head_probs")
    top = np.full(count, -1, dtype=np.int64)
    first = np.unique(head_at, return_index=True)
    top[first[0]] = head_id[first[1]]
    known = head_id < vocab_size
    head_at, head_id, head_p = head_at[known], head_id[known], head_p[known].astype(np.float64)
    if temperature != 1.0:
        log_z = np.concatenate([row.log_z[skip:, temperature_column] for row in rows]).astype(np.float64)
        head_p = np.exp(np.log(head_p) / temperature - log_z[head_at])
    tail = np.maximum(1.0 - _sum_at(head_at, head_p, count), 0.0)
    entropy = np.concatenate([row.entropy[skip:] for row in rows]).astype(np.float64)

    draw_at, draw_id, draw_w = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    bucket = tail.copy()
    weight_h = head_p
    if target_kind in ("linear", "rs-kd"):
        draw_at, draw_id, draw_w = _draws(rows, skip, tail, vocab_size)
        drawn = np.zeros(count, dtype=bool)
        drawn[draw_at] = True
        bucket[drawn] = 0.0
        # Where no draw carries the tail the loss is a KL of head and bucket; its own entropy makes it zero at best.
        own = -_sum_at(head_at, _xlogx(head_p), count) - _xlogx(tail)
        entropy = np.where(drawn, entropy, own)
        if target_kind == "rs-kd":
            share, bucket = resampled(
                np.concatenate([head_at, draw_at]),
                np.concatenate([head_p, draw_w]),
                bucket,
                uniforms(rows, seed=seed, num_draws=rs_draws, skip=skip),
            )
            weight_h, draw_w = share[: len(head_at)], share[len(head_at) :]
    elif target_kind == "top-k":
        mass = np.maximum(_sum_at(head_at, head_p, count), 1e-30)
        weight_h = head_p / mass[head_at]
        bucket[:] = 0.0
        entropy = -_sum_at(head_at, _xlogx(weight_h), count)
    if target_kind == "specialist":
        draw_at, draw_id, draw_w = _draws(rows, skip, tail, vocab_size)
        at, ids = np.concatenate([head_at, draw_at]), np.concatenate([head_id, draw_id])
        return _specialist(realised, subset, at=at, ids=ids, weight=np.concatenate([head_p, draw_w]), top=top)
    return _pad(
        realised,
        at=np.concatenate([head_at, draw_at]),
        ids=np.concatenate([head_id, draw_id]),
        teacher=np.concatenate([head_p, np.zeros(len(draw_at))]),
        weight=np.concatenate([weight_h, draw_w]),
        is_head=np.arange(len(head_at) + len(draw_at)) < len(head_at),
        per_position={"tail_P": tail, "bucket_P": bucket, "constant_P": entropy},
        top=top,
    )


def _realised(rows: list[Chunk], *, vocab_size: int, skip: int) -> Int64:
    parts = [row.tokens[1 + skip :].astype(np.int64) for row in rows]
    for row in rows:
        if len(row.tokens) and int(row.tokens.max()) >= vocab_size:
            info = row.rows[0]
            raise TrainError(
                f"document {info.document[:12]} window {info.window} holds token {int(row.tokens.max())}; the "
                f"student has {vocab_size} ids; choose a student with the shards' tokenizer"
            )
    return np.concatenate(parts)


def _entries(rows: list[Chunk], skip: int, starts: str, ids: str, values: str | None) -> tuple[Int64, Int64, Float64]:
    """Return position, id and value of every entry of the rows' ragged arrays, skipping first positions."""
    at, found, numbers, base = [], [], [], 0
    for row in rows:
        offsets = getattr(row, starts)[skip:]
        entries = slice(int(offsets[0]), int(offsets[-1]))
        at.append(base + np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)))
        found.append(getattr(row, ids)[entries])
        if values is not None:
            numbers.append(getattr(row, values)[entries])
        base += len(offsets) - 1
    value = np.concatenate(numbers) if numbers else np.zeros(0)
    return np.concatenate(at).astype(np.int64), np.concatenate(found).astype(np.int64), value


def _draws(rows: list[Chunk], skip: int, tail: Float64, vocab_size: int) -> tuple[Int64, Int64, Float64]:
    """Return position, id and weight of the distinct drawn ids; repeats add up, weights sum to the tail."""
    at, ids, _ = _entries(rows, skip, "draw_starts", "draw_ids", None)
    known = ids < vocab_size
    at, ids = at[known], ids[known]
    number = np.bincount(at, minlength=len(tail))
    key, times = np.unique(at << 32 | ids, return_counts=True)
    at, ids = key >> 32, key & 0xFFFFFFFF
    return at, ids, tail[at] * times / number[at]


def _pad(
    realised: Int64,
    *,
    at: Int64,
    ids: Int64,
    teacher: Float64,
    weight: Float64,
    is_head: npt.NDArray[np.bool_],
    per_position: dict[str, Float64],
    top: Int64,
) -> Targets:
    count = len(realised)
    column, width = _columns(realised, at=at, ids=ids)
    ids_PK = np.repeat(realised[:, None], width, axis=1)
    valid_PK = np.zeros((count, width), dtype=bool)
    head_PK = np.zeros((count, width), dtype=bool)
    teacher_PK = np.zeros((count, width), dtype=np.float32)
    weight_PK = np.zeros((count, width), dtype=np.float32)
    valid_PK[:, 0] = True
    valid_PK[at, column] = True
    ids_PK[at, column] = ids
    head_PK[at, column] = is_head
    teacher_PK[at, column] = teacher
    weight_PK[at, column] = weight
    head_PK |= ~valid_PK & head_PK[:, :1]
    return Targets(
        ids_PK=torch.from_numpy(ids_PK),
        valid_PK=torch.from_numpy(valid_PK),
        head_PK=torch.from_numpy(head_PK),
        teacher_PK=torch.from_numpy(teacher_PK),
        weight_PK=torch.from_numpy(weight_PK),
        top_P=torch.from_numpy(top),
        **{name: torch.from_numpy(value.astype(np.float32)) for name, value in per_position.items()},
    )


def _columns(realised: Int64, *, at: Int64, ids: Int64) -> tuple[Int64, int]:
    """Return each entry's column, and how many columns there are. Column 0 is the realised token's."""
    others = ids != realised[at]
    order = np.argsort(at, kind="stable")
    order = order[others[order]]
    counts = np.bincount(at[order], minlength=len(realised))
    starts = np.cumsum(counts) - counts
    column = np.zeros(len(at), dtype=np.int64)
    column[order] = np.arange(len(order)) - np.repeat(starts, counts) + 1
    return column, 1 + int(counts.max(initial=0))


def _specialist(
    realised: Int64, subset: tuple[int, ...], *, at: Int64, ids: Int64, weight: Float64, top: Int64
) -> Targets:
    """Return targets whose head is the whole subset at every position, and whose tail is the dustbin.

    Weights come from head and draws, so they are unbiased for each id; the dustbin has the rest.
    """
    count = len(realised)
    chosen = np.asarray(sorted(subset), dtype=np.int64)
    place = np.searchsorted(chosen, ids)
    inside = (place < len(chosen)) & (chosen[np.minimum(place, len(chosen) - 1)] == ids)
    dense = np.zeros((count, len(chosen)))
    dense[at[inside], place[inside]] = weight[inside]
    dustbin = np.maximum(1.0 - dense.sum(1), 0.0)
    return _pad(
        realised,
        at=np.repeat(np.arange(count), len(chosen)),
        ids=np.tile(chosen, count),
        teacher=dense.reshape(-1),
        weight=dense.reshape(-1),
        is_head=np.ones(count * len(chosen), dtype=bool),
        per_position={
            "tail_P": dustbin,
            "bucket_P": dustbin,
            "constant_P": -_xlogx(dense).sum(1) - _xlogx(dustbin),
        },
        top=top,
    )


def _realised_only(realised: Int64) -> Targets:
    count = len(realised)
    ids_PK = torch.from_numpy(realised[:, None].copy())
    zeros_PK, zeros_P = torch.zeros(count, 1), torch.zeros(count)
    return Targets(
        ids_PK=ids_PK,
        valid_PK=torch.ones(count, 1, dtype=torch.bool),
        head_PK=torch.zeros(count, 1, dtype=torch.bool),
        teacher_PK=zeros_PK,
        weight_PK=zeros_PK,
        tail_P=zeros_P,
        bucket_P=zeros_P,
        constant_P=zeros_P,
        top_P=torch.full((count,), -1, dtype=torch.int64),
    )


def _sum_at(at: Int64, value: Float64, count: int) -> Float64:
    return np.bincount(at, weights=value, minlength=count)


def _xlogx(p: Float64) -> Float64:
    return p * np.log(np.maximum(p, 1e-300))
