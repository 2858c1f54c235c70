"""How wrong is a student that reads other tokens than its teacher? Losses on what both can measure.

The terms of each part are in `cross_terms.py`; here they are fused with the output projection as in `fused.py`: nothing
of size [positions, vocabulary] outlives its block.

A chunk's gradient needs all of its positions at once, so blocks are cut between chunks. Its whitespace is predicted by
the first position after it; where that belongs to the next block, it is looked at once more.

Shapes: N places, P positions, p positions of a block (and perhaps one more), C chunks, B boundaries, K cells without
OTHER, V vocabulary, H hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from student_train.cross_tokenizer.targets import CrossTargets
from student_train.cross_tokenizer.terms import ALM_TEMPERATURE, IdOrder, binary_kl, cell_divergence, sorted_distance
from student_train.losses import fused_linear
from student_train.model.head import PLAIN, LogitMap

_SMALLEST_WHITE = 1e-30
_MEMORY = 4
"""Blocks with cells hold several times what plain ones hold, and are that much smaller."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossOutput:
    """The loss and its terms."""

    loss: torch.Tensor
    """Scalar float32: sum over parts of scale times the sum of terms; carries the gradient."""
    terms: dict[str, torch.Tensor]
    """float32 by part: `ce` [P], `alm` [C], `cells`, `matched` or `uld` [B]; unscaled."""
    norms: dict[str, float] | None = None
    """Of the parts' gradients, where they were asked for; see `gradient_norms`."""


@torch.no_grad()
def gradient_norms(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    *,
    bias_V: torch.Tensor | None,
    index_P: torch.Tensor,
    targets: CrossTargets,
    order: IdOrder,
    parts: tuple[str, ...],
    compute_dtype: torch.dtype = torch.float32,
    logit_map: LogitMap = PLAIN,
) -> dict[str, float]:
    """Return, for each part, the norm of the gradient of its mean term by the projection; 0 without terms."""
    found = {}
    for part in parts:
        count = targets.counts[part]
        with torch.enable_grad():
            weight = weight_VH.detach().requires_grad_()
            out = cross_loss(
                hidden_NH.detach(),
                weight,
                bias_V if bias_V is None else bias_V.detach(),
                index_P=index_P,
                targets=targets,
                order=order,
                scales={part: 1.0 / max(1, count)},
                compute_dtype=compute_dtype,
                logit_map=logit_map,
            )
            (grad,) = torch.autograd.grad(out.loss, weight)
        found[part] = float(torch.linalg.vector_norm(grad, dtype=torch.float32)) if count else 0.0
    return found


class CrossScores(NamedTuple):
    """How the student does."""

    nll_P: torch.Tensor
    """float32, nats: -log of the probability of the realised token."""
    confidence_P: torch.Tensor
    """float32: the largest probability."""
    hit_P: torch.Tensor
    """bool: the preferred token is the realised one."""
    span_kl_W: torch.Tensor
    """float32, nats: KL of "this chunk, then whitespace" or not, teacher from student (tau 1)."""
    cell_kl_B: torch.Tensor
    """float32, nats: KL on the cells."""
    same_B: torch.Tensor
    """bool: both models' preferred tokens lie in the same cell."""


def cross_loss(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    bias_V: torch.Tensor | None,
    *,
    index_P: torch.Tensor,
    targets: CrossTargets,
    order: IdOrder,
    scales: dict[str, float],
    compute_dtype: torch.dtype = torch.float32,
    logit_map: LogitMap = PLAIN,
) -> CrossOutput:
    """Return the sum over `scales` (part -> factor) of factor times the sum of the part's terms.

    `index_P` (int64, no repeats) says which of the N places each position is. Of `cells`, `matched` and `uld` only the
    one that `targets` were made for may be named.
    """
    names = tuple(scales)
    loss, *terms = _CrossFused.apply(
        hidden_NH, weight_VH, bias_V, index_P, targets, order, scales, compute_dtype, logit_map
    )
    return CrossOutput(loss=loss, terms=dict(zip(names, terms, strict=True)))


class _CrossFused(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx: Any,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        index_P: torch.Tensor,
        targets: CrossTargets,
        order: IdOrder,
        scales: dict[str, float],
        compute_dtype: torch.dtype,
        logit_map: LogitMap,
    ):
        wanted = ctx.needs_input_grad[:3]
        found: dict[str, list[torch.Tensor]] = {name: [] for name in scales}
        with torch.autocast(hidden_NH.device.type, enabled=False):
            sums = fused_linear.GradAccumulator(
                hidden_NH, weight_VH, bias_V, wanted=wanted, positions=len(index_P), dtype=compute_dtype
            )
            weight_c = weight_VH.detach().to(compute_dtype)
            for block in blocks(targets, len(weight_VH)):
                place_p = index_P[block.start : block.look]
                hidden_pH = hidden_NH.detach()[place_p].to(compute_dtype)
                logits_pV = fused_linear.project(hidden_pH, weight_c, bias_V)
                slope_pV = logit_map.apply(logits_pV, needed=any(wanted))
                for name, term in _judge_block(logits_pV, block, targets, order, scales, needed=any(wanted)).items():
                    found[name].append(term)
                if any(wanted):  # logits_pV now holds the gradient
                    if slope_pV is not None:
                        logits_pV.mul_(slope_pV)
                    logits_pV = sums.cast(logits_pV)
                    sums.add(place_p, hidden_pH, logits_pV, weight_c)
                del logits_pV, slope_pV
            terms = [torch.cat(found[name]) if found[name] else hidden_NH.new_zeros(0).float() for name in scales]
        ctx.grads = sums.grads
        ctx.mark_non_differentiable(*terms)
        loss = sum((scale * term.sum() for scale, term in zip(scales.values(), terms, strict=True)), torch.zeros(()))
        return (loss, *terms)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        grads, ctx.grads = ctx.grads, (None, None, None)
        if float(grad) != 1.0:
            grads = tuple(None if g is None else g.mul_(grad) for g in grads)
        return (*grads, None, None, None, None, None, None)


class Block(NamedTuple):
    """Positions that are worked on together."""

    start: int
    """First position."""
    stop: int
    """One past the last position whose terms are counted here."""
    look: int
    """`stop`, or one more where the last chunk's whitespace is predicted by position `stop`."""
    chunks: slice
    """Chunks that lie in it."""
    boundaries: slice
    """Boundaries whose position lies in it."""


def blocks(targets: CrossTargets, vocab: int) -> Iterator[Block]:
    """Yield blocks of about `fused.BLOCK_ELEMENTS` / 4 logits that part no chunk."""
    P = len(targets.label_P)
    size = max(16, fused_linear.BLOCK_ELEMENTS // _MEMORY // vocab)
    first_W, end_W = targets.first_W.cpu(), targets.end_W.cpu()
    at_B = targets.at_B.cpu()
    start = 0
    while start < P:
        stop = min(start + size, P)
        begun = int(torch.searchsorted(first_W, stop))  # chunks that begin before stop
        if begun and int(end_W[begun - 1]) > stop:
            at = int(first_W[begun - 1])
            stop = at if at > start else int(end_W[begun - 1])
        low, high = (int(torch.searchsorted(first_W, x)) for x in (start, stop))
        look = stop + int(high > low and int(end_W[high - 1]) == stop)
        b_low, b_high = (int(torch.searchsorted(at_B, x)) for x in (start, stop))
        yield Block(start, stop, look, slice(low, high), slice(b_low, b_high))
        start = stop


def _judge_block(
    logits_pV: torch.Tensor,
    block: Block,
    targets: CrossTargets,
    order: IdOrder,
    scales: dict[str, float],
    *,
    needed: bool,
) -> dict[str, torch.Tensor]:
    """Return the terms of each part, and turn the logits into the loss' gradient by them.

    Every part's gradient by x_v is S_v times something, plus something at the realised token.
    """
    n = block.stop - block.start
    label_n = targets.label_P[block.start : block.stop]
    S_pV, logp_n = _student(logits_pV, label_n)
    terms: dict[str, torch.Tensor] = {}
    by_logp_n = torch.zeros_like(logp_n)
    common_p = torch.zeros(len(S_pV), device=S_pV.device)
    by_white_p, white_p = torch.zeros_like(common_p), None
    if "ce" in scales:
        terms["ce"] = -logp_n
        by_logp_n -= scales["ce"]
    if "alm" in scales:
        white_p = (S_pV @ order.white_V).clamp_min(_SMALLEST_WHITE)
        member_Wn, end_W = _members(block, targets)
        log_student_W = (member_Wn @ logp_n.double()).float() + white_p[end_W].log()
        terms["alm"], grad_W = binary_kl(targets.teacher_W[block.chunks], log_student_W, ALM_TEMPERATURE)
        grad_W = grad_W * scales["alm"]
        by_logp_n += (grad_W.double() @ member_Wn).float()
        by_white_p[end_W] = grad_W
    common_p[:n] -= by_logp_n
    common_p -= by_white_p
    kind = next((name for name in scales if name in ("cells", "matched", "uld")), None)
    factor_bV = None
    at_b = targets.at_B[block.boundaries] - block.start
    if kind is not None:
        judge = sorted_distance if kind == "uld" else cell_divergence
        terms[kind], factor_bV = judge(S_pV[at_b], targets, block.boundaries, order)
    if not needed:
        return terms
    factor_pV = common_p[:, None].expand(S_pV.shape)
    if white_p is not None:
        factor_pV = torch.addcmul(factor_pV, (by_white_p / white_p)[:, None], order.white_V[None])
    if factor_bV is not None and kind is not None:
        factor_pV = factor_pV.contiguous()
        factor_pV[at_b] += factor_bV.mul_(scales[kind])
    S_pV.mul_(factor_pV)
    S_pV[:n].scatter_(1, label_n[:, None], S_pV[:n].gather(1, label_n[:, None]) + by_logp_n[:, None])
    return terms


def _student(logits_pV: torch.Tensor, label_n: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the student's probabilities, in the logits' memory, and the realised tokens' log-probabilities."""
    log_sum_p = logits_pV.logsumexp(1)
    n = len(label_n)
    logp_n = logits_pV[:n].gather(1, label_n[:, None])[:, 0] - log_sum_p[:n]
    return logits_pV.sub_(log_sum_p[:, None]).exp_(), logp_n


def _members(block: Block, targets: CrossTargets) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which positions make up each chunk (float64 [C, n]), and the position that predicts its whitespace."""
    first_W = targets.first_W[block.chunks] - block.start
    end_W = targets.end_W[block.chunks] - block.start
    place_n = torch.arange(block.stop - block.start, device=first_W.device)
    return ((place_n >= first_W[:, None]) & (place_n < end_W[:, None])).double(), end_W


@torch.no_grad()
def cross_scores(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    bias_V: torch.Tensor | None,
    *,
    index_P: torch.Tensor,
    targets: CrossTargets,
    order: IdOrder,
    compute_dtype: torch.dtype = torch.float32,
    logit_map: LogitMap = PLAIN,
) -> CrossScores:
    """Return what evaluation needs; `targets` are those of `cells`."""
    found: list[CrossScores] = []
    with torch.autocast(hidden_NH.device.type, enabled=False):
        weight_c = weight_VH.to(compute_dtype)
        for block in blocks(targets, len(weight_VH)):
            hidden_pH = hidden_NH[index_P[block.start : block.look]].to(compute_dtype)
            logits_pV = fused_linear.project(hidden_pH, weight_c, bias_V)
            logit_map.apply(logits_pV)
            found.append(_score_block(logits_pV, block, targets, order))
    if not found:
        none = hidden_NH.new_zeros(0).float()
        return CrossScores(none, none, none.bool(), none, none, none.bool())
    return CrossScores(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _score_block(logits_pV: torch.Tensor, block: Block, targets: CrossTargets, order: IdOrder) -> CrossScores:
    label_n = targets.label_P[block.start : block.stop]
    S_pV, logp_n = _student(logits_pV, label_n)
    best_p, top_p = S_pV.max(1)
    member_Wn, end_W = _members(block, targets)
    white_W = (S_pV[end_W] @ order.white_V).clamp_min(_SMALLEST_WHITE)
    log_student_W = (member_Wn @ logp_n.double()).float() + white_W.log()
    at_b = targets.at_B[block.boundaries] - block.start
    cell_kl_b, _ = cell_divergence(S_pV[at_b], targets, block.boundaries, order)
    low_bK, high_bK = targets.low_BK[block.boundaries], targets.high_BK[block.boundaries]
    rank_b = order.rank_V[top_p[at_b]]
    inside = (low_bK <= rank_b[:, None]) & (rank_b[:, None] < high_bK)
    cell_b = (inside * torch.arange(1, low_bK.shape[1] + 1, device=inside.device)).amax(1)
    n = len(label_n)
    return CrossScores(
        nll_P=-logp_n,
        confidence_P=best_p[:n],
        hit_P=top_p[:n] == label_n,
        span_kl_W=binary_kl(targets.teacher_W[block.chunks], log_student_W, 1.0)[0],
        cell_kl_B=cell_kl_b,
        same_B=cell_b == targets.top_B[block.boundaries] + 1,
    )
