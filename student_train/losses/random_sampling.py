"""Random-sampling KD, simulated on a cache of heads and draws.

Random-sampling KD (Anshumann et al. 2025) stores N ids drawn independently from the teacher's softmax t and estimates t
by counts / N. A cache of heads and draws does not hold t but an unbiased estimate e of it with weights that sum to one.
N ids drawn from e have E[counts / N | e] = e, and E[e] = t, so the result is unbiased for t too. Its variance is the
sum of the variances of both steps, slightly more than that of N ids drawn from t. The mass of a tail without draws is
one class, the bucket.

A draw is a function of (seed, document, window, position, number of the draw), not of batch, rank or epoch. So the ids
are the same in each epoch, as stored ids are.

Shapes: P positions, N draws of a position.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from shards.format.chunk import Chunk
from student_train.data.hashing import mix
from student_train.data.row_labels import num_skipped

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def uniforms(rows: list[Chunk], *, seed: int, num_draws: int, skip: int) -> Float64:
    """Return numbers in [0, 1) [P, N] for the positions of `rows` with a label; `skip` is that of `first_label`."""
    parts = []
    for row in rows:
        info = row.rows[0]
        digest = hashlib.sha256(f"rs-kd/{seed}/{info.document}/{info.window}".encode()).digest()
        first, last = num_skipped(row, skip=skip), len(row.tokens) - info.context
        counter = np.arange(first * num_draws, last * num_draws, dtype=np.uint64)
        words = mix(counter, np.uint64(int.from_bytes(digest[:8], "little")))
        parts.append((words >> np.uint64(11)).astype(np.float64) * 2.0**-53)
    return np.concatenate(parts).reshape(-1, num_draws)


def resample(position: Int64, weight: Float64, bucket_P: Float64, uniform_PN: Float64) -> tuple[Float64, Float64]:
    """Draw N classes at each position from its entries and its bucket.

    Args:
        position: Position of each entry.
        weight: Probability of each entry.
        bucket_P: Probability of the bucket: what the entries leave.
        uniform_PN: Numbers in [0, 1), one for each draw.

    Returns:
        Share of the draws of each entry, in the order of the entries, and of the bucket [P].
    """
    num_positions, num_draws = uniform_PN.shape
    position_all = np.concatenate([position, np.arange(num_positions)])
    weight_all = np.concatenate([weight, bucket_P])
    classes = np.argsort(position_all, kind="stable")  # the entries in their order, then the bucket
    classes = classes[weight_all[classes] > 0.0]
    class_position, mass = position_all[classes], weight_all[classes]
    num_classes_P = np.bincount(class_position, minlength=num_positions)
    ends_P = np.cumsum(num_classes_P)
    cumulative = np.concatenate([[0.0], np.cumsum(mass)])
    first_P, last_P = cumulative[ends_P - num_classes_P], cumulative[ends_P]
    # The classes of position p divide [p, p + 1), so one search serves all positions.
    upper = class_position + (cumulative[1:] - first_P[class_position]) / (last_P - first_P)[class_position]
    drawn_PN = np.searchsorted(upper, np.arange(num_positions)[:, None] + uniform_PN, side="right")
    drawn_PN = np.minimum(drawn_PN, ends_P[:, None] - 1)  # p + u may round to p + 1
    share = np.zeros(len(position_all))
    share[classes] = np.bincount(drawn_PN.reshape(-1), minlength=len(classes)) / num_draws
    return share[: len(position)], share[len(position) :]
