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
from student_train.fused import LossOutput, LossSpec, Scores, fused_loss, fused_scores
from student_train.packing import Batch, empty_batch
from student_train.parallel import World, whole


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

    def forward(self, batch: Batch, scale: float | None) -> LossOutput | Scores:
        """Return the loss of a batch, times `scale`; without a scale, its scores.

        One entry for both, as wrappers that split parameters gather them for this call only.
        """
        head = self.model.get_output_embeddings()
        if scale is None:
            with torch.no_grad():
                return fused_scores(
                    self.hidden(batch),
                    head.weight,
                    head.bias,
                    index_P=batch.index_P,
                    targets=batch.targets,
                    compute_dtype=self.compute_dtype,
                )
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
    """What one step measured: means over its positions, on all ranks."""

    loss: float
    """What was minimised."""
    kd: float | None
    """The divergence, times T^2; None for cross-entropy alone."""
    ce: float
    """Cross-entropy with the realised tokens, nats."""
    positions: int
    """Positions with a target; 0 for a step whose rows are all held out: nothing was updated."""
    stop: bool
    """Whether any rank was asked to stop."""


def take_step(
    distiller: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: tuple[Batch, ...],
    *,
    number: int,
    lr: float,
    clip: float,
    world: World,
    stop: bool = False,
) -> StepResult:
    """Do one optimiser step; a collective.

    Raises: TrainError, naming rows, before the update if the loss is not finite.
    """
    spec = distiller.spec
    has_kd = spec.divergence is not None
    told = world.gather((sum(batch.num_positions for batch in batches), len(batches), stop))
    total, most = sum(count for count, _, _ in told), max(number for _, number, _ in told)
    stop = any(asked for _, _, asked in told)
    if total == 0:
        return StepResult(loss=0.0, kd=0.0 if has_kd else None, ce=0.0, positions=0, stop=stop)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    kd = ce = 0.0
    bad: list[RowInfo] = []
    for batch in (*batches, *(empty_batch() for _ in range(most - len(batches)))):
        out = distiller(batch.to(world.device), 1.0 / total)
        out.loss.backward()
        kd += float(out.kd_P.double().sum())
        ce += float(out.ce_P.double().sum())
        if not math.isfinite(kd + ce):
            bad += _rows_at(batch, (~torch.isfinite(out.kd_P + out.ce_P)).nonzero().flatten().tolist())
    sums = world.gather((kd, ce, bad))
    _require_finite(number, [row for _, _, rows in sums for row in rows])
    kd, ce = sum(part for part, _, _ in sums), sum(part for _, part, _ in sums)
    norm = nn.utils.clip_grad_norm_(distiller.parameters(), clip if clip > 0 else math.inf)
    length = float(whole(norm))
    if not math.isfinite(length):
        raise TrainError(
            f"step {number}: found a gradient norm of {length} at a finite loss, expected a number; nothing "
            "was updated; lower --learning-rate and name another --out"
        )
    optimizer.step()
    share = spec.ce_weight if has_kd else 1.0
    return StepResult(
        loss=(share * ce + (1.0 - share) * kd) / total,
        kd=kd / total if has_kd else None,
        ce=ce / total,
        positions=total,
        stop=stop,
    )


def _require_finite(number: int, bad: list[RowInfo]) -> None:
    if not bad:
        return
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
