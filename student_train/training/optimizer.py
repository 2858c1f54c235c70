"""The optimiser and its learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any

import torch

from student_train.config import Config


def make_optimizer(model: Any, config: Config) -> torch.optim.AdamW:
    """Return AdamW over the parameters that train, with weight decay on matrices only."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
        eps=config.adam_eps,
    )


def learning_rate(config: Config, *, step: int, total: int) -> float:
    """Return the learning rate of step `step` (from 0) of `total`.

    After a linear warm-up, `cosine` falls to a tenth of the peak; `wsd` stays, and falls to zero over the last fifth.
    """
    warmup_steps = max(1, round(config.warmup * total))
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / warmup_steps
    if config.schedule == "cosine":
        progress = (step - warmup_steps) / max(1, total - warmup_steps)
        return config.learning_rate * (0.1 + 0.45 * (1.0 + math.cos(math.pi * progress)))
    decay_steps = max(1, round(0.2 * total))
    return config.learning_rate * min(1.0, (total - step) / decay_steps)
