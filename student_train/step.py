"""What is one optimiser step? Batches in, one update out, normalised by the number of predicted tokens.

The student and its fused loss are one module, so that whatever wraps it (autocast, FSDP) sees one forward pass. The
loss of a step is its sum over positions divided by the number of positions of the whole step, over batches and ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from shards.chunk import RowInfo
from student_train.config import Config
from student_train.errors import StudentError, TrainError
from student_train.fused import LossOutput, LossSpec, fused_loss, fused_scores
from student_train.packing import Batch


class Distiller(nn.Module):
    """A causal language model whose forward pass ends in a loss instead of logits."""

    def __init__(self, model: Any, spec: LossSpec, *, dtype: str) -> None:
        super().__init__()
        self.model = model
        self.spec = spec
        self.compute_dtype = getattr(torch, dtype)

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Return what the projection reads [B * T, H]."""
        device_type = batch.tokens_BT.device.type
        mixed = self.compute_dtype != torch.float32
        with torch.autocast(device_type, dtype=self.compute_dtype if mixed else None, enabled=mixed):
            out = self.model.get_decoder()(
                input_ids=batch.tokens_BT,
                position_ids=batch.places_BT,
                attention_mask=batch.attend_B1TT,
                use_cache=False,
            )
        return out.last_hidden_state.flatten(0, 1)

    def forward(self, batch: Batch, scale: float) -> LossOutput:
        """Return the loss of a batch, times `scale`."""
        head = self.model.get_output_embeddings()
        return fused_loss(
            self.hidden(batch),
            head.weight,
            head.bias,
            index_P=batch.index_P,
            targets=batch.targets,
            spec=self.spec,
            scale=scale,
            compute_dtype=self.compute_dtype,
        )

    @torch.no_grad()
    def scores(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return KL to the teacher, -log probability of the realised token, agreement of the top ids; [P] each."""
        head = self.model.get_output_embeddings()
        return fused_scores(
            self.hidden(batch),
            head.weight,
            head.bias,
            index_P=batch.index_P,
            targets=batch.targets,
            compute_dtype=self.compute_dtype,
        )


def require_plain_head(model: Any) -> None:
    """Raise StudentError if the model does more to its hidden states than project them (soft caps, scales)."""
    tokens = torch.arange(4, device=next(model.parameters()).device)[None]
    with torch.no_grad():
        expected = model(input_ids=tokens, use_cache=False).logits
        found = model.get_output_embeddings()(model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state)
    if not torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max() + 1e-9)):
        raise StudentError(
            f"student: found a {type(model).__name__} that changes its logits after the projection, expected a plain "
            "one; choose another student"
        )


def make_optimizer(model: Any, config: Config) -> torch.optim.AdamW:
    """Return AdamW; decay on matrices, none on norms and biases."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
    )


def learning_rate(config: Config, *, step: int, total: int) -> float:
    """Return the learning rate of step `step` (from 0) of `total`."""
    warm = max(1, round(config.warmup * total))
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    if config.schedule == "cosine":
        done = (step - warm) / max(1, total - warm)
        return config.learning_rate * (0.1 + 0.45 * (1.0 + math.cos(math.pi * done)))
    cooling = max(1, round(0.2 * total))
    return config.learning_rate * min(1.0, (total - step) / cooling)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What one step measured: means over its positions."""

    loss: float
    """What was minimised."""
    kd: float | None
    """The divergence, times T^2; None for cross-entropy alone."""
    ce: float
    """Cross-entropy with the realised tokens, nats."""
    positions: int
    """Positions with a target; 0 for a step whose rows are all held out: nothing was updated."""


def take_step(
    distiller: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: tuple[Batch, ...],
    *,
    number: int,
    lr: float,
    clip: float,
    device: torch.device,
) -> StepResult:
    """Do one optimiser step. Raises: TrainError, naming rows, before the update if the loss is not finite."""
    spec = distiller.spec
    total = sum(batch.num_positions for batch in batches)
    has_kd = spec.divergence is not None
    if total == 0:
        return StepResult(loss=0.0, kd=0.0 if has_kd else None, ce=0.0, positions=0)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    kd = ce = 0.0
    for batch in batches:
        out = distiller(batch.to(device), 1.0 / total)
        _require_finite(out, batch, number, has_kd=has_kd)
        out.loss.backward()
        kd += float(out.kd_P.double().sum())
        ce += float(out.ce_P.double().sum())
    norm = nn.utils.clip_grad_norm_(distiller.parameters(), clip if clip > 0 else math.inf)
    if not math.isfinite(float(norm)):
        raise TrainError(
            f"step {number}: found a gradient norm of {float(norm)} at a finite loss, expected a number; lower "
            "--learning-rate, then continue from the newest checkpoint with another --out"
        )
    optimizer.step()
    share = spec.ce_weight if has_kd else 1.0
    return StepResult(
        loss=(share * ce + (1.0 - share) * kd) / total,
        kd=kd / total if has_kd else None,
        ce=ce / total,
        positions=total,
    )


def _require_finite(out: LossOutput, batch: Batch, number: int, *, has_kd: bool) -> None:
    bad_P = ~torch.isfinite(out.ce_P)
    if has_kd:
        bad_P |= ~torch.isfinite(out.kd_P)
    if not bool(bad_P.any()):
        return
    bad = _rows_at(batch, bad_P.nonzero().flatten().tolist())
    named = ", ".join(f"{row.source}:{row.path} window {row.window} ({row.document[:12]})" for row in bad[:3])
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    raise TrainError(
        f"step {number}: found a loss that is not finite in {named}{more}, expected a number; nothing was updated; "
        "lower --learning-rate, or look at these rows with logit-shards verify"
    )


def _rows_at(batch: Batch, positions: list[int]) -> list[RowInfo]:
    found, start = [], 0
    places = set(positions)
    for row, count in zip(batch.rows, batch.row_positions, strict=True):
        if any(p in places for p in range(start, start + count)):
            found.append(row)
        start += count
    return found
