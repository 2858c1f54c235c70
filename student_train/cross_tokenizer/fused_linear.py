"""Loss and scores of a student with another tokenizer, fused with the output projection.

`terms.py` defines the terms of each part; `losses/blockwise.py` computes them without a matrix of positions by
vocabulary.

The gradient of a word span needs all of its positions at once, so blocks are cut between spans. The whitespace after a
span is predicted by the first position after it. Where that position belongs to the next block, both blocks compute its
logits.

Shapes: N places of a batch, P positions, p positions with logits in a block, n positions with terms in it,
W word spans, B boundaries with cells, b boundaries of a block, K cells without OTHER, V vocabulary size, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from student_train.cross_tokenizer.targets import CrossTargets
from student_train.cross_tokenizer.terms import ALM_TEMPERATURE, IdOrder, binary_kl, cell_divergence, sorted_distance
from student_train.losses import blockwise
from student_train.losses.blockwise import LogitBlock, LossOutput, Projection, blockwise_loss, blockwise_scores

_SMALLEST_WHITE = 1e-30
"""Smallest probability of whitespace."""
_MEMORY = 4
"""Blocks with cells hold about four times the memory of plain ones, so they have a quarter of the positions."""
_DISTRIBUTIONS = {"cells": cell_divergence, "matched": cell_divergence, "uld": sorted_distance}
"""Parts that compare distributions at shared boundaries."""


class CrossScores(NamedTuple):
    """Measures of the student."""

    nll_P: torch.Tensor
    """float32, nats: -log probability of the label."""
    confidence_P: torch.Tensor
    """float32: the largest probability."""
    hit_P: torch.Tensor
    """bool: the most probable token is the label."""
    span_kl_W: torch.Tensor
    """float32, nats: KL of "this span, then whitespace" or not, teacher from student, at temperature 1."""
    cell_kl_B: torch.Tensor
    """float32, nats: KL on the cells."""
    same_B: torch.Tensor
    """bool: the most probable tokens of both models are in the same cell."""


def cross_loss(
    hidden_NH: torch.Tensor,
    projection: Projection,
    *,
    index_P: torch.Tensor,
    targets: CrossTargets,
    order: IdOrder,
    scales: dict[str, float],
) -> LossOutput:
    """Return the sum over parts of the part's scale times the sum of its terms.

    Args:
        hidden_NH: Hidden states that the projection reads.
        projection: The output projection.
        index_P: int64 place of each position among the N, without repeats.
        targets: Targets of the positions.
        order: The student's ids.
        scales: Scale of each part. Of `cells`, `matched` and `uld` only the one that `targets` were made for.

    Returns:
        The loss. `terms` has `ce` [P], `alm` [W], and `cells`, `matched` or `uld` [B].
    """
    loss = _CrossLoss(targets=targets, order=order, scales=scales)
    return blockwise_loss(hidden_NH, projection, index_P=index_P, loss=loss)


def gradient_norms(
    hidden_NH: torch.Tensor,
    projection: Projection,
    *,
    index_P: torch.Tensor,
    targets: CrossTargets,
    order: IdOrder,
    parts: tuple[str, ...],
) -> dict[str, float]:
    """Return, for each part, the norm of the gradient of its mean term by the projection; 0 without terms."""
    bias_V = None if projection.bias_V is None else projection.bias_V.detach()
    norms = {}
    for part in parts:
        count = targets.counts[part]
        with torch.enable_grad():
            weight_VH = projection.weight_VH.detach().requires_grad_()
            out = cross_loss(
                hidden_NH.detach(),
                replace(projection, weight_VH=weight_VH, bias_V=bias_V),
                index_P=index_P,
                targets=targets,
                order=order,
                scales={part: 1.0 / max(1, count)},
            )
            (grad,) = torch.autograd.grad(out.loss, weight_VH)
        norms[part] = float(torch.linalg.vector_norm(grad, dtype=torch.float32)) if count else 0.0
    return norms


@dataclass(frozen=True, slots=True)
class SpanBlock(LogitBlock):
    """Positions of which the logits are computed together, and their terms."""

    end: int
    """One past the last position with terms in the block: `stop`, or `stop - 1` where the last position only predicts
    the whitespace after the last span."""
    spans: slice
    """Word spans of the block."""
    boundaries: slice
    """Boundaries with a position in the block."""


def span_blocks(targets: CrossTargets, vocab_size: int) -> Iterator[SpanBlock]:
    """Yield blocks of a quarter of the usual size; no span is in two blocks."""
    num_positions = len(targets.label_P)
    size = blockwise.block_size(vocab_size, targets.label_P.device, parts=_MEMORY)
    first_W, end_W, at_B = targets.first_W.cpu(), targets.end_W.cpu(), targets.at_B.cpu()
    start = 0
    while start < num_positions:
        end = min(start + size, num_positions)
        num_begun = int(torch.searchsorted(first_W, end))
        if num_begun and int(end_W[num_begun - 1]) > end:
            first = int(first_W[num_begun - 1])
            end = first if first > start else int(end_W[num_begun - 1])
        low, high = (int(torch.searchsorted(first_W, position)) for position in (start, end))
        stop = end + int(high > low and int(end_W[high - 1]) == end)
        low_B, high_B = (int(torch.searchsorted(at_B, position)) for position in (start, end))
        yield SpanBlock(start, stop, end, slice(low, high), slice(low_B, high_B))
        start = end


@dataclass(frozen=True, kw_only=True, slots=True)
class _CrossLoss:
    """The loss as `blockwise_loss` takes it."""

    targets: CrossTargets
    order: IdOrder
    scales: dict[str, float]

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.scales)

    def blocks(self, vocab_size: int) -> Iterator[SpanBlock]:
        return span_blocks(self.targets, vocab_size)

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        return sum((scale * terms[part].sum() for part, scale in self.scales.items()), torch.zeros(()))

    def terms(self, logits_pV: torch.Tensor, block: SpanBlock, *, needs_grad: bool) -> dict[str, torch.Tensor]:
        """See `BlockwiseLoss`. The gradient of every part by x_v is S_v times a factor, plus one for the label."""
        label_n = self.targets.label_P[block.start : block.end]
        S_pV, logp_n = _softmax(logits_pV, label_n)
        terms: dict[str, torch.Tensor] = {}
        by_logp_n = torch.zeros_like(logp_n)
        by_white_p = torch.zeros(len(S_pV), device=S_pV.device)
        white_p = None
        if "ce" in self.scales:
            terms["ce"] = -logp_n
            by_logp_n -= self.scales["ce"]
        if "alm" in self.scales:
            white_p = (S_pV @ self.order.white_V).clamp_min(_SMALLEST_WHITE)
            member_Wn, end_W = _members(block, self.targets)
            log_student_W = (member_Wn @ logp_n.double()).float() + white_p[end_W].log()
            terms["alm"], grad_W = binary_kl(self.targets.teacher_W[block.spans], log_student_W, ALM_TEMPERATURE)
            grad_W = grad_W * self.scales["alm"]
            by_logp_n += (grad_W.double() @ member_Wn).float()
            by_white_p[end_W] = grad_W
        part = next((name for name in self.scales if name in _DISTRIBUTIONS), None)
        at_b = self.targets.at_B[block.boundaries] - block.start
        factor_bV = None
        if part is not None:
            terms[part], factor_bV = _DISTRIBUTIONS[part](S_pV[at_b], self.targets, block.boundaries, self.order)
        if not needs_grad:
            return terms
        n = len(label_n)
        factor_p = torch.zeros_like(by_white_p)
        factor_p[:n] -= by_logp_n
        factor_p -= by_white_p
        factor_pV = factor_p[:, None].expand(S_pV.shape)
        if white_p is not None:
            factor_pV = torch.addcmul(factor_pV, (by_white_p / white_p)[:, None], self.order.white_V[None])
        if factor_bV is not None and part is not None:
            factor_pV = factor_pV.contiguous()
            factor_pV[at_b] += factor_bV.mul_(self.scales[part])
        S_pV.mul_(factor_pV)
        S_pV[:n].scatter_(1, label_n[:, None], S_pV[:n].gather(1, label_n[:, None]) + by_logp_n[:, None])
        return terms


def _softmax(logits_pV: torch.Tensor, label_n: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probabilities, in the memory of the logits, and the log-probabilities of the labels."""
    log_sum_p = logits_pV.logsumexp(1)
    n = len(label_n)
    logp_n = logits_pV[:n].gather(1, label_n[:, None])[:, 0] - log_sum_p[:n]
    return logits_pV.sub_(log_sum_p[:, None]).exp_(), logp_n


def _members(block: SpanBlock, targets: CrossTargets) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which positions each span has (float64 [W, n]), and the position that predicts its whitespace [W]."""
    first_W = targets.first_W[block.spans] - block.start
    end_W = targets.end_W[block.spans] - block.start
    position_n = torch.arange(block.end - block.start, device=first_W.device)
    return ((position_n >= first_W[:, None]) & (position_n < end_W[:, None])).double(), end_W


def cross_scores(
    hidden_NH: torch.Tensor,
    projection: Projection,
    *,
    index_P: torch.Tensor,
    targets: CrossTargets,
    order: IdOrder,
) -> CrossScores:
    """Return the student's measures; `targets` are those of `cells`.

    Args:
        hidden_NH: Hidden states that the projection reads.
        projection: The output projection.
        index_P: int64 place of each position among the N, without repeats.
        targets: Targets of the positions.
        order: The student's ids.
    """

    def score(logits_pV: torch.Tensor, block: SpanBlock) -> CrossScores:
        label_n = targets.label_P[block.start : block.end]
        n = len(label_n)
        S_pV, logp_n = _softmax(logits_pV, label_n)
        best_p, top_p = S_pV.max(1)
        member_Wn, end_W = _members(block, targets)
        white_W = (S_pV[end_W] @ order.white_V).clamp_min(_SMALLEST_WHITE)
        log_student_W = (member_Wn @ logp_n.double()).float() + white_W.log()
        at_b = targets.at_B[block.boundaries] - block.start
        cell_kl_b, _ = cell_divergence(S_pV[at_b], targets, block.boundaries, order)
        return CrossScores(
            nll_P=-logp_n,
            confidence_P=best_p[:n],
            hit_P=top_p[:n] == label_n,
            span_kl_W=binary_kl(targets.teacher_W[block.spans], log_student_W, 1.0)[0],
            cell_kl_B=cell_kl_b,
            same_B=_cell_of(order.rank_V[top_p[at_b]], targets, block.boundaries)
            == targets.top_B[block.boundaries] + 1,
        )

    blocks = span_blocks(targets, len(projection.weight_VH))
    scores = blockwise_scores(hidden_NH, projection, index_P=index_P, blocks=blocks, score=score)
    if scores:
        return CrossScores(*scores)
    none = hidden_NH.new_zeros(0).float()
    return CrossScores(none, none, none.bool(), none, none, none.bool())


def _cell_of(rank_b: torch.Tensor, targets: CrossTargets, boundaries: slice) -> torch.Tensor:
    """Return the number of the innermost cell of each id, given by its rank, from 1; 0 for OTHER."""
    low_bK, high_bK = targets.low_BK[boundaries], targets.high_BK[boundaries]
    inside_bK = (low_bK <= rank_b[:, None]) & (rank_b[:, None] < high_bK)
    return (inside_bK * torch.arange(1, low_bK.shape[1] + 1, device=inside_bK.device)).amax(1)
