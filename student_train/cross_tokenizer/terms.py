"""Terms of the loss across tokenizers, and their derivatives.

Each part of the loss is a sum of terms. Let S be the student's probabilities and x its logits.

ce        -log S of the label, at each position.
alm       Approximate likelihood matching (Minixhofer et al. 2025, arXiv 2503.20083) with outcome debiasing. A word span
          and the whitespace after it have log-probability l: the sum over the span's tokens, plus the log of the mass
          on whitespace. With a = l_teacher / tau - eps and b = l_student / tau - eps the term is a binary KL:
          e^a (a - b) + (1 - e^a) (log(1 - e^a) - log(1 - e^b)).
cells     KL of the teacher from the student on the cells of a shared boundary (`prefix_cells.py`): the sum of
          q (log q - log(P + eps)), with q and P the masses of teacher and student in a cell. Its derivative by x_v is
          S_v (sum of q P / (P + eps) - q_c / (P_c + eps)), c the cell of v.
matched   The same, with one cell for each id that both models have.
uld       Universal logit distillation (Boizard et al. 2024, arXiv 2402.12030): L1 distance of sorted probabilities;
          the mass beyond the stored head is one entry. A lower bound. Positions are paired at shared boundaries, which
          favours this loss over its original pairing by position number.

The student's probabilities are summed over ranges of ids in integers (unit 2^-60). The sums are exact up to the
rounding of each S, and equal on all devices.

Shapes: b boundaries of a block, K cells without OTHER, C = K + 1 cells with it, E edges of cells, V vocabulary size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from student_train.cross_tokenizer.prefix_cells import Roots
from student_train.cross_tokenizer.targets import CrossTargets
from student_train.cross_tokenizer.vocabulary import Vocabulary

ALM_TEMPERATURE = 5.0
"""tau of `alm`; the ablation of the paper prefers it to 100."""
_EPS = 1e-6
_SMALLEST_CELL = 1e-8
_UNIT = 2.0**60


@dataclass(frozen=True, kw_only=True, slots=True)
class IdOrder:
    """The student's ids in the order that the losses need, on one device."""

    order_V: torch.Tensor
    """int64 ids, ordered so that every cell is one range (`prefix_cells.Roots`)."""
    rank_V: torch.Tensor
    """int64 place of each id in `order_V`."""
    white_V: torch.Tensor
    """float32; 1 for ids that begin with whitespace or end a text."""

    @classmethod
    def of(cls, student: Vocabulary, roots: Roots) -> IdOrder:
        """Return the order of a student's vocabulary by the roots of a teacher."""
        return cls(
            order_V=torch.from_numpy(roots.order_V),
            rank_V=torch.from_numpy(roots.rank_V),
            white_V=torch.from_numpy(student.white).float(),
        )

    def to(self, device: torch.device) -> IdOrder:
        """Return the order on `device`."""
        return replace(
            self, order_V=self.order_V.to(device), rank_V=self.rank_V.to(device), white_V=self.white_V.to(device)
        )


def binary_kl(
    log_teacher: torch.Tensor, log_student: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the terms of `alm` (nats) and their derivatives by the student's log-probabilities.

    Args:
        log_teacher: Log-probability of each event by the teacher.
        log_student: The same by the student.
        temperature: tau.
    """
    a = log_teacher.clamp_max(0.0) / temperature - _EPS
    b = log_student.clamp_max(0.0) / temperature - _EPS
    not_a, not_b = _log1mexp(a), _log1mexp(b)
    yes, no = a.exp(), -torch.expm1(a)
    value = yes * (a - b) + no * (not_a - not_b)
    return value, (no * (b - not_b).exp() - yes) / temperature


def _log1mexp(x: torch.Tensor) -> torch.Tensor:
    """Return log(1 - e^x) for x < 0 (Maechler 2012)."""
    return torch.where(x < -math.log(2.0), torch.log1p(-x.exp()), torch.log(-torch.expm1(x)))


def cell_divergence(
    S_bV: torch.Tensor, targets: CrossTargets, boundaries: slice, order: IdOrder
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the terms of `cells` and the factors of their gradient.

    Args:
        S_bV: The student's probabilities at the boundaries.
        targets: Targets of all boundaries.
        boundaries: The boundaries of the block.
        order: The student's ids.

    Returns:
        Terms [b], float32 nats, and the factor of S in their gradient by the logits [b, V].
    """
    low_bK, high_bK = targets.low_BK[boundaries], targets.high_BK[boundaries]
    q_bC = torch.cat((targets.other_B[boundaries, None], targets.mass_BK[boundaries]), 1).double()
    cells = _CellMasses(S_bV.index_select(1, order.order_V), low_bK, high_bK)
    share_bC = q_bC / (cells.mass_bC + _SMALLEST_CELL)
    value_b = (torch.xlogy(q_bC, q_bC) - q_bC * (cells.mass_bC + _SMALLEST_CELL).log()).sum(1)
    mean_b = (share_bC * cells.mass_bC).sum(1)
    factor_bV = cells.to_ids(share_bC.float()).index_select(1, order.rank_V)
    return value_b.float(), factor_bV.neg_().add_(mean_b.float()[:, None])


class _CellMasses:
    """The student's mass in each cell, and the map from cells back to ids.

    The sorted edges of the ranges cut the ordered ids into segments. The owner of a segment is the innermost range
    around it: the last of those that hold its first edge, as outer ranges come first.
    """

    def __init__(self, S_bV: torch.Tensor, low_bK: torch.Tensor, high_bK: torch.Tensor) -> None:
        b, K = low_bK.shape
        self._edges_bE = torch.cat((low_bK, high_bK), 1).sort(1).values
        edge_bE1 = self._edges_bE[:, :, None]
        number_K = torch.arange(1, K + 1, device=S_bV.device)
        holds_bEK = (low_bK[:, None, :] <= edge_bE1) & (edge_bE1 < high_bK[:, None, :])
        self._owner_bE = (holds_bEK * number_K).amax(2)
        self._sums = torch.zeros(b, S_bV.shape[1] + 1, dtype=torch.int64, device=S_bV.device)
        self._sums[:, 1:] = S_bV.mul_(_UNIT)
        self._sums.cumsum_(1)
        at_edge_bE = self._sums.gather(1, self._edges_bE)
        segment_bE = torch.cat((at_edge_bE[:, 1:], self._sums[:, -1:]), 1) - at_edge_bE
        is_cell_bEC = self._owner_bE[:, :, None] == torch.arange(K + 1, device=S_bV.device)
        mass_bC = (is_cell_bEC * segment_bE[:, :, None]).sum(1)
        mass_bC[:, 0] += at_edge_bE[:, 0]
        self.mass_bC = mass_bC.double() / _UNIT
        """float64; OTHER first."""

    def to_ids(self, value_bC: torch.Tensor) -> torch.Tensor:
        """Return the value of each ordered id's cell [b, V]. May be called once, as it reuses memory."""
        value_bS = torch.cat((value_bC[:, :1], value_bC.gather(1, self._owner_bE)), 1)
        # The segment of an id is the number of edges up to it. Edges that coincide write the same number.
        same_bE = (self._edges_bE[:, :, None] == self._edges_bE[:, None, :]).sum(2)
        self._sums.zero_().scatter_(1, self._edges_bE, same_bE)
        return value_bS.gather(1, self._sums.cumsum_(1)[:, :-1])


def sorted_distance(
    S_bV: torch.Tensor, targets: CrossTargets, boundaries: slice, order: IdOrder
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the terms of `uld` and the factors of their gradient; see `cell_divergence`."""
    t_bK = targets.mass_BK[boundaries]
    used = min(t_bK.shape[1], S_bV.shape[1])
    s_bK, ids_bK = S_bV.topk(used, dim=1)
    t_bK = t_bK[:, :used]
    stored_bK = t_bK > 0
    rest_b = 1.0 - torch.where(stored_bK, s_bK, 0.0).sum(1)
    value_b = torch.where(stored_bK, (s_bK - t_bK).abs(), 0.0).sum(1) + (rest_b - targets.other_B[boundaries]).abs()
    sign_b = (rest_b - targets.other_B[boundaries]).sign()
    sign_bK = torch.where(stored_bK, (s_bK - t_bK).sign(), sign_b[:, None])
    mean_b = torch.where(stored_bK, sign_bK * s_bK, 0.0).sum(1) + sign_b * rest_b
    factor_bV = (sign_b - mean_b)[:, None].expand(S_bV.shape).contiguous()
    return value_b, factor_bV.scatter_(1, ids_bK, sign_bK - mean_b[:, None])
