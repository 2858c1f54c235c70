"""Fuse the output projection with a loss, over blocks of positions.

The logits of one block are turned into their own gradient in place. That gradient is multiplied into the gradients of
the hidden states and of the projection at once. No tensor of size [positions, vocabulary] outlives its block. The
gradients are computed in the forward pass and returned in the backward pass: a loss is a sum, so its outer derivative
is a number.

Arithmetic: the matrix products run in `Projection.compute_dtype`. Logits, losses, their gradients and the sums over
blocks are float32. Results are deterministic: blocks run in order, without atomic additions.

Shapes: N places of a batch (padding included), P positions with a target, p positions of a block, H hidden size,
V vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from student_train.model.head import PLAIN, LogitMap

BLOCK_ELEMENTS = 2**25
"""Logits of one block: 128 MiB of float32. Smaller blocks are slower (`benchmarks/fused_loss.py`)."""
GPU_BLOCK_ELEMENTS = 2**28
"""The same on a GPU, 1 GiB: its products need more rows, and each block reads and writes the projection's gradient."""
_GPU_SHARE = 32
"""A block takes at most this part of a GPU's memory."""
_VOCAB_BLOCK = 8192
"""Rows of the projection's gradient that are summed at a time where the products are not float32."""
_SMALLEST_BLOCK = 16
"""Positions."""


@dataclass(frozen=True, slots=True)
class Projection:
    """The output projection of a student, and how it is computed."""

    weight_VH: torch.Tensor
    """Matrix from hidden states to token ids."""
    bias_V: torch.Tensor | None = None
    """Bias of each id; None without one."""
    compute_dtype: torch.dtype = torch.float32
    """Type of the matrix products."""
    logit_map: LogitMap = PLAIN
    """What the model does to its logits after the projection."""

    def detach(self) -> Projection:
        """Return the projection without its history, in `compute_dtype`."""
        return Projection(
            self.weight_VH.detach().to(self.compute_dtype),
            None if self.bias_V is None else self.bias_V.detach(),
            self.compute_dtype,
            self.logit_map,
        )

    def logits(self, hidden_pH: torch.Tensor) -> torch.Tensor:
        """Return float32 products [p, V] before the logit map. The caller may overwrite them."""
        logits_pV = (hidden_pH @ self.weight_VH.t()).float()
        return logits_pV if self.bias_V is None else logits_pV.add_(self.bias_V.float())


@dataclass(frozen=True, slots=True)
class LogitBlock:
    """Positions of which the logits are computed together."""

    start: int
    """First position."""
    stop: int
    """One past the last position."""


BlockT = TypeVar("BlockT", bound=LogitBlock)
ResultT = TypeVar("ResultT", bound=tuple[torch.Tensor, ...])


class BlockwiseLoss(Protocol[BlockT]):
    """A loss that is a sum over terms, each of which needs the logits of one block only."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts of the loss."""

    def blocks(self, vocab_size: int) -> Iterable[BlockT]:
        """Return the blocks, in order."""

    def terms(self, logits_pV: torch.Tensor, block: BlockT, *, needs_grad: bool) -> dict[str, torch.Tensor]:
        """Return the float32 terms of each part; with `needs_grad`, turn the logits into the loss' gradient."""

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss, a float32 scalar, from the terms of all blocks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossOutput:
    """A loss and its terms."""

    loss: torch.Tensor
    """float32 scalar; carries the gradient."""
    terms: dict[str, torch.Tensor]
    """float32 terms of each part, unscaled, without gradient."""
    norms: dict[str, float] | None = None
    """Norm of each part's gradient, where it was measured."""


def blockwise_loss(
    hidden_NH: torch.Tensor, projection: Projection, *, index_P: torch.Tensor, loss: BlockwiseLoss[Any]
) -> LossOutput:
    """Compute a loss from hidden states.

    Args:
        hidden_NH: Hidden states that the projection reads.
        projection: The output projection.
        index_P: int64 place of each position among the N, without repeats.
        loss: The loss of the positions.
    """
    total, *terms = _Blockwise.apply(hidden_NH, projection.weight_VH, projection.bias_V, projection, index_P, loss)
    return LossOutput(loss=total, terms=dict(zip(loss.parts, terms, strict=True)))


class _Blockwise(torch.autograd.Function):  # type: ignore[misc]  # mypy does not read torch
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        projection: Projection,
        index_P: torch.Tensor,
        loss: BlockwiseLoss[Any],
    ) -> tuple[torch.Tensor, ...]:
        wanted = ctx.needs_input_grad[:3]
        needs_grad = any(wanted)
        found: dict[str, list[torch.Tensor]] = {part: [] for part in loss.parts}
        dtype = projection.compute_dtype
        with torch.autocast(hidden_NH.device.type, enabled=False):
            grads = GradAccumulator(
                hidden_NH, weight_VH, bias_V, wanted=wanted, positions=len(index_P), compute_dtype=dtype
            )
            computed = projection.detach()
            for block in loss.blocks(len(weight_VH)):
                place_p = index_P[block.start : block.stop]
                hidden_pH = hidden_NH.detach()[place_p].to(dtype)
                logits_pV = computed.logits(hidden_pH)
                slope_pV = projection.logit_map.apply(logits_pV, needed=needs_grad)
                for part, term in loss.terms(logits_pV, block, needs_grad=needs_grad).items():
                    found[part].append(term)
                if needs_grad:  # `logits_pV` holds the gradient now
                    if slope_pV is not None:
                        logits_pV.mul_(slope_pV)
                    # The float32 tensor is freed before the matrix products need memory.
                    logits_pV = grads.cast(logits_pV)
                    grads.add(place_p, hidden_pH, logits_pV, computed.weight_VH)
                del logits_pV, slope_pV
            terms = {part: torch.cat(t) if t else hidden_NH.new_zeros(0).float() for part, t in found.items()}
        ctx.grads = grads.result
        ctx.mark_non_differentiable(*terms.values())
        return (loss.total(terms), *terms.values())

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> tuple[torch.Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, (None, None, None)
        if float(outer[0]) != 1.0:
            grads = tuple(None if grad is None else grad.mul_(outer[0]) for grad in grads)
        return (*grads, None, None, None)


class GradAccumulator:
    """Gradients of hidden states, projection and bias, summed block by block."""

    def __init__(
        self,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        *,
        wanted: tuple[bool, ...],
        positions: int,
        compute_dtype: torch.dtype,
    ) -> None:
        """Allocate the gradients that are `wanted` (hidden states, projection, bias); `positions` is P."""
        self._hidden_NH = torch.zeros_like(hidden_NH) if wanted[0] else None
        overwritten = compute_dtype == torch.float32 and positions > 0
        empty = torch.empty_like if overwritten else torch.zeros_like
        self._weight_VH = empty(weight_VH, dtype=torch.float32) if wanted[1] else None
        self._bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if wanted[2] and bias_V is not None else None
        self._weight_dtype, self._compute_dtype = weight_VH.dtype, compute_dtype
        self._is_first = True

    def cast(self, grad_pV: torch.Tensor) -> torch.Tensor:
        """Return a block's gradient by its logits in the type that `add` takes; add its float32 sum to the bias."""
        if self._bias_V is not None:
            self._bias_V += grad_pV.sum(0)
        return grad_pV.to(self._compute_dtype)

    def add(
        self, place_p: torch.Tensor, hidden_pH: torch.Tensor, grad_pV: torch.Tensor, weight_VH: torch.Tensor
    ) -> None:
        """Add a block's share of the gradients of hidden states and projection."""
        if self._hidden_NH is not None:
            # Two blocks may share a place; its gradients add up.
            self._hidden_NH[place_p] += (grad_pV @ weight_VH).to(self._hidden_NH.dtype)
        if self._weight_VH is not None and hidden_pH.dtype == torch.float32:
            # beta 0 overwrites without reading, so the memory needs no zeroing.
            self._weight_VH.addmm_(grad_pV.t(), hidden_pH, beta=0.0 if self._is_first else 1.0)
        elif self._weight_VH is not None:
            # bfloat16 products are summed in float32 by blocks of the vocabulary: a whole product is as large as the
            # projection.
            for start in range(0, len(self._weight_VH), _VOCAB_BLOCK):
                block = slice(start, start + _VOCAB_BLOCK)
                self._weight_VH[block] += grad_pV[:, block].t() @ hidden_pH
        self._is_first = False

    @property
    def result(self) -> tuple[torch.Tensor | None, ...]:
        """Gradients of hidden states, projection and bias; None for those not wanted."""
        weight_VH = None if self._weight_VH is None else self._weight_VH.to(self._weight_dtype)
        bias_V = None if self._bias_V is None else self._bias_V.to(self._weight_dtype)
        return self._hidden_NH, weight_VH, bias_V


def blockwise_scores(
    hidden_NH: torch.Tensor,
    projection: Projection,
    *,
    index_P: torch.Tensor,
    blocks: Iterable[BlockT],
    score: Callable[[torch.Tensor, BlockT], ResultT],
) -> list[torch.Tensor]:
    """Return what `score` computes from the logits [p, V] of each block, concatenated; [] without blocks."""
    found: list[ResultT] = []
    with torch.no_grad(), torch.autocast(hidden_NH.device.type, enabled=False):
        computed = projection.detach()
        for block in blocks:
            hidden_pH = hidden_NH[index_P[block.start : block.stop]].to(projection.compute_dtype)
            logits_pV = computed.logits(hidden_pH)
            projection.logit_map.apply(logits_pV)
            found.append(score(logits_pV, block))
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def block_size(vocab_size: int, device: torch.device, *, parts: int = 1) -> int:
    """Return how many positions a block has; at least 16.

    Args:
        vocab_size: Logits of a position.
        device: The device of the loss.
        parts: The block holds this many times the memory of its logits.
    """
    return max(_SMALLEST_BLOCK, block_elements(device) // parts // vocab_size)


def block_elements(device: torch.device) -> int:
    """Return the logits of one block on a device."""
    if device.type != "cuda":
        return BLOCK_ELEMENTS
    total_bytes = int(torch.cuda.get_device_properties(device).total_memory)
    return max(BLOCK_ELEMENTS, min(GPU_BLOCK_ELEMENTS, total_bytes // (4 * _GPU_SHARE)))


def logit_blocks(positions: int, vocab_size: int, device: torch.device) -> list[LogitBlock]:
    """Return blocks that cover `positions` positions, see `block_size`."""
    size = block_size(vocab_size, device)
    return [LogitBlock(start, min(start + size, positions)) for start in range(0, positions, size)]
