"""Reduce next-token logits to sparse records.

Both engines call `sparsify` on the device that holds the logits, in blocks of bounded size. Their records therefore
differ only by what the engines compute differently.

The estimator is a threshold head plus systematic sampling (docs/format.md). Every id of probability c or more is kept
exactly. M = ceil(tail / c) draws at equal steps through the cumulative tail represent all other ids, each with weight
tail / M. The expected weight of each id is its probability, so the expected loss is the loss against the full
distribution. Limit: positions whose tail is below `tail_floor` have no draws, and a loss treats their tail as one
outcome.

Masses are rounded to multiples of 2^-40 and summed as whole numbers in float64. These sums are exact below 2^53, and
therefore equal in any order on every device. Sums and searches have two levels: over groups of ids, then inside the few
groups that matter. A position costs a handful of passes over its logits.

Shapes: P positions, V vocabulary, G groups of ids, I ids of a group, K head slots, M draw slots, Z temperatures.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from shards.format.quantiser import expected_draws
from shards.format.schema import TAIL_STEP
from teacher_dump.engines.records import Records, RecordSpec

REDUCED_BYTES = {"cpu": 3 * 2**20}
"""Largest float32 block of logits that is reduced at once, by device type. On a CPU it fits into the cache
(benchmarks/reduction.py)."""
_REDUCED_BYTES_ELSEWHERE = 32 * 2**20
_MASS_UNIT = float(2**40)
_GROUP = 64
"""Number of ids of a group."""


def sparsify(
    logits_PV: torch.Tensor,
    labels_P: torch.Tensor,
    offsets_P: torch.Tensor,
    *,
    spec: RecordSpec,
    whitespace_V: torch.Tensor,
) -> Records:
    """Reduce logits to records.

    Args:
        logits_PV: Float [P, V], without the padding of the vocabulary.
        labels_P: Token ids that follow each position, int64 [P].
        offsets_P: Sampling offsets, float64 [P] in [0, 1): see `records.draw_offsets`.
        spec: What the records contain.
        whitespace_V: Float32 [V], 1 for ids that begin with a whitespace byte or end a text.

    Raises:
        ValueError: A logit is not finite.
    """
    num_positions, num_ids = logits_PV.shape
    device = logits_PV.device
    step = max(1, REDUCED_BYTES.get(device.type, _REDUCED_BYTES_ELSEWHERE) // (4 * num_ids))
    buffers = _Buffers.allocate(min(step, num_positions), num_ids, device)
    whitespace_V = F.pad(whitespace_V, (0, -num_ids % _GROUP))
    num_draws_C = torch.from_numpy(expected_draws(spec.threshold, spec.tail_floor)).to(device)
    blocks = []
    for start in range(0, num_positions, step):
        block = slice(start, start + step)
        blocks.append(
            _sparsify_block(
                logits_PV[block], labels_P[block], offsets_P[block], spec, whitespace_V, num_draws_C, buffers
            )
        )
    records = Records(**{name: torch.cat([getattr(block, name) for block in blocks]) for name in Records.__slots__})
    # Checked once per call: each check makes the host wait for a GPU.
    if not torch.isfinite(records.scalars[:, ::2]).all():
        raise ValueError(
            "found logits that are not finite, expected finite ones: check the teacher's weights and dtype"
        )
    return records


@dataclass(frozen=True, slots=True)
class _Buffers:
    """Buffers of one block, allocated once per call: allocating this much memory costs more than the arithmetic in it.

    Their widths are multiples of the group size.
    """

    logits_PV: torch.Tensor
    """float32."""
    power_PV: torch.Tensor
    """float32."""
    mass_PV: torch.Tensor
    """float64."""

    @classmethod
    def allocate(cls, num_positions: int, num_ids: int, device: torch.device) -> _Buffers:
        width = num_ids + -num_ids % _GROUP
        logits_PV, power_PV = torch.empty(2, num_positions, width, device=device)
        return cls(logits_PV, power_PV, torch.empty(num_positions, width, dtype=torch.float64, device=device))


def _sparsify_block(
    logits_PV: torch.Tensor,
    labels_P: torch.Tensor,
    offsets_P: torch.Tensor,
    spec: RecordSpec,
    whitespace_V: torch.Tensor,
    num_draws_C: torch.Tensor,
    buffers: _Buffers,
) -> Records:
    """Reduce one block of logits. `num_draws_C` holds the number of draws by the code of the quantised tail."""
    num_positions, num_ids = logits_PV.shape
    x_PV = buffers.logits_PV[:num_positions]
    e_PV, mass_PV = buffers.power_PV[:num_positions], buffers.mass_PV[:num_positions]
    # The block is read four times. A copy of it stays in the cache; the tensor that it comes from does not fit.
    x_PV[:, :num_ids] = logits_PV
    x_PV[:, num_ids:] = -torch.inf
    ids_PK = _largest(x_PV, min(spec.head_slots, num_ids))
    log_sums = dict(_log_sums(x_PV, (1.0, *spec.temperatures), peak_P1=ids_PK[:, :1], out_PV=e_PV))
    sum_P1 = e_PV.sum(1, keepdim=True)  # sum of exp(x) times a constant of the row, which cancels below
    top_PK = e_PV.gather(1, ids_PK) / sum_P1
    label_logp_P1 = x_PV.gather(1, labels_P[:, None]) - log_sums[1.0]
    mean_P1 = x_PV[:, :num_ids].mul_(e_PV[:, :num_ids]).sum(1, keepdim=True) / sum_P1
    entropy_P1 = (log_sums[1.0] - mean_P1).clamp_min(0)
    whitespace_logp_P1 = ((e_PV @ whitespace_V)[:, None] / sum_P1).log()
    log_z = [log_sums[t] - log_sums[1.0] / t for t in spec.temperatures]

    in_head_PK = top_PK >= spec.threshold
    in_head_PK[:, 0] = True
    unused = (0, spec.head_slots - ids_PK.shape[1])
    head_probs_PK = F.pad(torch.where(in_head_PK, top_PK, 0.0), unused)
    # The number of draws follows from the stored, quantised tail, so that it costs no bytes.
    tail_P = (1 - head_probs_PK.double().sum(1)).clamp(0, 1)
    codes_P = (tail_P.sqrt().asin() * (1 / TAIL_STEP)).round().nan_to_num().long().clamp_max(254)
    # Masses are whole numbers from here on. The ids of the head get mass 0.
    e_PV.mul_(_MASS_UNIT / sum_P1).round_()
    e_PV.scatter_(1, ids_PK, e_PV.gather(1, ids_PK).masked_fill(in_head_PK, 0))
    return Records(
        head_ids=F.pad(torch.where(in_head_PK, ids_PK, -1).int(), unused, value=-1),
        head_probs=head_probs_PK,
        draw_ids=_systematic_draws(mass_PV.copy_(e_PV), num_draws_C[codes_P], offsets_P, spec.draw_slots),
        scalars=torch.cat((label_logp_P1, whitespace_logp_P1, entropy_P1, *log_z), 1),
    )


def _largest(x_PV: torch.Tensor, count: int) -> torch.Tensor:
    """Return the ids of the `count` largest entries, int64 [P, count], largest first, equal ones in ascending order.

    These entries are in the `count` groups of largest maximum.
    """
    groups_PGI = x_PV.unflatten(1, (-1, _GROUP))
    candidates_PG = groups_PGI.amax(2).topk(min(count, groups_PGI.shape[1]), dim=1, sorted=False).indices
    ids_PN = (candidates_PG[:, :, None] * _GROUP + torch.arange(_GROUP, device=x_PV.device)).flatten(1)
    top_PK, index_PK = x_PV.gather(1, ids_PN).topk(count, dim=1, sorted=False)
    ids_PK, by_id_PK = ids_PN.gather(1, index_PK).sort(1)
    return ids_PK.gather(1, top_PK.gather(1, by_id_PK).sort(dim=1, descending=True, stable=True).indices)


def _log_sums(
    x_PV: torch.Tensor, temperatures: Collection[float], *, peak_P1: torch.Tensor, out_PV: torch.Tensor
) -> Iterator[tuple[float, torch.Tensor]]:
    """Yield (T, log sum_v exp(x_v / T) [P, 1]) for each temperature.

    Halving a temperature squares the exponentials. They are computed anew only for a temperature whose double is not
    among the others, and by a softmax, which has the fastest kernel on every device.

    Args:
        x_PV: Logits.
        temperatures: Temperatures, 1 among them.
        peak_P1: Id of the largest entry.
        out_PV: Receives exp(x) times a constant of each row: the last temperature that is yielded is 1.
    """
    largest_P1 = x_PV.gather(1, peak_P1)
    for chain in _halving_chains(temperatures):
        torch.softmax(torch.mul(x_PV, 1 / chain[0], out=out_PV), 1, out=out_PV)
        for t in chain:
            if t != chain[0]:
                out_PV.square_()
            # The term of the largest entry is exp(largest / T).
            yield t, largest_P1 / t + (out_PV.sum(1, keepdim=True) / out_PV.gather(1, peak_P1)).log()


def _halving_chains(temperatures: Collection[float]) -> list[list[float]]:
    """Split temperatures into chains of halves. Float32's range allows three per chain.

    The chain with 1 is last and ends with 1, so that the exponentials that remain are those of temperature 1.
    """
    chains: list[list[float]] = []
    for t in sorted(temperatures, reverse=True):
        chain = next((c for c in chains if c[-1] == 2 * t and c[-1] != 1 and len(c) < 3), None)
        if chain is None:
            chains.append([t])
        else:
            chain.append(t)
    return sorted(chains, key=lambda chain: 1.0 in chain)


def _systematic_draws(
    mass_PV: torch.Tensor, num_draws_P: torch.Tensor, offsets_P: torch.Tensor, slots: int
) -> torch.Tensor:
    """Draw ids at equal steps through the cumulative mass.

    Args:
        mass_PV: Mass of each id, float64, whole numbers.
        num_draws_P: Number of draws of each position.
        offsets_P: Sampling offsets, float64 in [0, 1).
        slots: Largest number of draws, M.

    Returns:
        Ids, int32 [P, M], ascending, -1 in unused slots.
    """
    groups_PGI = mass_PV.unflatten(1, (-1, _GROUP))
    cumulative_PG = groups_PGI.sum(2).cumsum(1)
    total_P1 = cumulative_PG[:, -1:]
    num_draws_P1 = num_draws_P[:, None].masked_fill(total_P1 == 0, 0)
    slots_M = torch.arange(slots, dtype=torch.float64, device=mass_PV.device)
    # Points are strictly inside [0, total): a draw never selects an id of mass 0.
    points_PM = ((offsets_P[:, None] + slots_M) * (total_P1 / num_draws_P1.clamp_min(1))).floor()
    points_PM = points_PM.minimum((total_P1 - 1).clamp_min(0))
    group_PM = torch.searchsorted(cumulative_PG, points_PM, right=True).clamp_max(cumulative_PG.shape[1] - 1)
    before_PM = torch.where(group_PM > 0, cumulative_PG.gather(1, (group_PM - 1).clamp_min(0)), 0.0)
    row_P1 = torch.arange(len(mass_PV), device=mass_PV.device)[:, None]
    inside_PMI = groups_PGI[row_P1, group_PM].cumsum(2)
    index_PM = torch.searchsorted(inside_PMI, (points_PM - before_PM)[:, :, None], right=True)[:, :, 0]
    ids_PM = group_PM * _GROUP + index_PM
    return torch.where(slots_M < num_draws_P1, ids_PM, -1).int()
