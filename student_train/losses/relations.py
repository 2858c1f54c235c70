"""KL between the relations of teacher and student: MiniLMv2's loss on queries, keys and values (Wang et al. 2021).

A relation of a position is the softmax of its scaled inner products with the positions of its row up to itself, within
one relation head. The term of a position is the mean over kinds and relation heads of KL(teacher || student). The
student's vectors are cut into the teacher's number of relation heads, so widths and attention heads may differ.

Gradients are computed in the forward pass, row by row and for a few heads at a time, so no tensor of size
[heads, positions, positions] outlives its block. Everything is float32.

Shapes: N places of a batch, S positions with relations, A relation heads, P positions of a row, W numbers of a
position, w of a relation head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

BLOCK_ELEMENTS = 2**22
"""Most scores of a block: 16 MiB of float32, of which a handful of tensors are alive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RelationTargets:
    """The teacher's vectors of the rows of a batch that have some."""

    vectors: tuple[torch.Tensor, ...]
    """Queries, keys and values, each float32 [S, A, stored width]."""
    widths: tuple[int, ...]
    """Width of a relation head in the teacher, which scales inner products."""
    spans: tuple[tuple[int, int], ...]
    """For each row: place of its first position among the N, and number of its positions. They add up to S."""

    @property
    def num_positions(self) -> int:
        """S."""
        return sum(count for _, count in self.spans)

    def to(self, device: torch.device) -> RelationTargets:
        """Return the targets on `device`."""
        return replace(self, vectors=tuple(v.to(device, non_blocking=True) for v in self.vectors))


def relation_loss(states: tuple[torch.Tensor, ...], targets: RelationTargets) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of all terms, which carries the gradient, and the terms, float32 [S].

    Args:
        states: The student's queries, keys and values, each [N, W], where A divides W.
        targets: The teacher's.
    """
    total, terms_S = _RelationLoss.apply(targets, *states)
    return total, terms_S


class _RelationLoss(torch.autograd.Function):  # type: ignore[misc]  # mypy does not read torch
    @staticmethod
    def forward(ctx: Any, targets: RelationTargets, *states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        terms_S = torch.zeros(targets.num_positions, device=states[0].device)
        grads = [torch.zeros_like(states_NW) if states_NW.requires_grad else None for states_NW in states]
        with torch.autocast(states[0].device.type, enabled=False):
            for states_NW, teacher_SAw, width, grad_NW in zip(
                states, targets.vectors, targets.widths, grads, strict=True
            ):
                share = 1.0 / (len(states) * teacher_SAw.shape[1])
                for place, start, count in _rows(targets.spans):
                    teacher_APw = teacher_SAw[start : start + count].transpose(0, 1)
                    row_PW = states_NW[place : place + count].float()
                    student_APw = row_PW.unflatten(1, (teacher_APw.shape[0], -1)).transpose(0, 1)
                    terms_P, grad_APw = _row_divergence(teacher_APw, student_APw, teacher_width=width)
                    terms_S[start : start + count] += share * terms_P
                    if grad_NW is not None:
                        grad_PW = grad_APw.transpose(0, 1).flatten(1).mul_(share)
                        grad_NW[place : place + count] = grad_PW.to(grad_NW.dtype)
        ctx.grads = grads
        ctx.mark_non_differentiable(terms_S)
        return terms_S.sum(), terms_S

    @staticmethod
    def backward(ctx: Any, outer: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, []
        return (None, *(None if grad is None else grad.mul_(outer) for grad in grads))


def _rows(spans: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int, int]]:
    """Yield the first place among the N, the first index among the S, and the number of positions of each row."""
    start = 0
    for place, count in spans:
        yield place, start, count
        start += count


def _row_divergence(
    teacher_APw: torch.Tensor, student_APw: torch.Tensor, *, teacher_width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the KL of each position summed over heads, [P], and its gradient by the student's vectors."""
    heads, count, student_width = student_APw.shape
    future_PP = torch.ones(count, count, dtype=torch.bool, device=student_APw.device).triu(1)
    terms_P = torch.zeros(count, device=student_APw.device)
    grads = []
    step = max(1, BLOCK_ELEMENTS // (count * count))
    for first in range(0, heads, step):
        teacher, student = teacher_APw[first : first + step], student_APw[first : first + step]
        target_log = _log_relations(teacher, future_PP, width=teacher_width)
        own_log = _log_relations(student, future_PP, width=student_width)
        target = target_log.exp()
        terms_P += (target * target_log.sub_(own_log).masked_fill_(future_PP, 0.0)).sum((0, 2))
        # By the scores: own relations minus the teacher's. Each vector is in a row and in a column of the scores.
        by_score = own_log.exp_().sub_(target)
        grads.append((by_score + by_score.transpose(1, 2)) @ student / math.sqrt(student_width))
    return terms_P, torch.cat(grads)


def _log_relations(vectors_aPw: torch.Tensor, future_PP: torch.Tensor, *, width: int) -> torch.Tensor:
    """Return the log of the relations, [a, P, P]; -inf for later positions."""
    scores_aPP = vectors_aPw @ vectors_aPw.transpose(1, 2) / math.sqrt(width)
    return scores_aPP.masked_fill_(future_PP, -math.inf).log_softmax(2)
