"""What would RS-KD have stored? Ids drawn anew from the stored estimate, for comparison.

Random sampling KD (Anshumann et al. 2025) stores N ids drawn independently from the teacher's softmax t and takes
counts / N for it. A cache of heads and draws does not hold t but an unbiased estimate e, whose weights sum to one.
N ids drawn from e have E[counts / N | e] = e, and E[e] = t: what comes out is still unbiased for t. Its variance is the
sum of both steps', a little more than that of N ids drawn from t itself. Mass of a tail that no draw carries is drawn
as one class, the bucket.

A draw depends on (seed, document, window, position, its number) alone: not on batch, rank or epoch. Like stored ids,
they stay the same from epoch to epoch.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from shards.format.chunk import Chunk
from student_train.data.hashing import mix

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def uniforms(rows: list[Chunk], *, seed: int, num_draws: int, skip: int) -> Float64:
    """Return numbers in [0, 1) for all positions of `rows` [P, N], without each row's first `skip` positions."""
    found = []
    for row in rows:
        info = row.rows[0]
        digest = hashlib.sha256(f"rs-kd/{seed}/{info.document}/{info.window}".encode()).digest()
        counter = np.arange(skip * num_draws, (len(row.tokens) - 1) * num_draws, dtype=np.uint64)
        words = mix(counter, np.uint64(int.from_bytes(digest[:8], "little")))
        found.append((words >> np.uint64(11)).astype(np.float64) * 2.0**-53)
    return np.concatenate(found).reshape(-1, num_draws)


def resampled(at: Int64, weight: Float64, bucket_P: Float64, uniform_PN: Float64) -> tuple[Float64, Float64]:
    """Return shares of N draws: of each entry, in the entries' order, and of the bucket [P].

    Entry i belongs to position `at[i]` and has the probability `weight[i]`; the bucket has what entries leave.
    """
    positions, num_draws = uniform_PN.shape
    at_all = np.concatenate([at, np.arange(positions)])
    weight_all = np.concatenate([weight, bucket_P])
    classes = np.argsort(at_all, kind="stable")  # entries as given, the bucket last
    classes = classes[weight_all[classes] > 0.0]
    place, mass = at_all[classes], weight_all[classes]
    ends = np.cumsum(np.bincount(place, minlength=positions))
    upto = np.concatenate([[0.0], np.cumsum(mass)])
    first_P, last_P = upto[ends - np.bincount(place, minlength=positions)], upto[ends]
    # Position p's classes share out [p, p + 1), so one search serves all positions.
    key = place + (upto[1:] - first_P[place]) / (last_P - first_P)[place]
    found_PN = np.searchsorted(key, np.arange(positions)[:, None] + uniform_PN, side="right")
    found_PN = np.minimum(found_PN, ends[:, None] - 1)  # p + u may round to p + 1
    share = np.zeros(len(at_all))
    share[classes] = np.bincount(found_PN.reshape(-1), minlength=len(classes)) / num_draws
    return share[: len(at)], share[len(at) :]
