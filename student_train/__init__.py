"""Train a small model on stored records of a teacher: as a command, or in a loop of your own.

`Distillation` streams the steps of a run and computes their losses. `fused_loss` and what it takes are its parts.

Names are imported on first use, so that `student-train --help` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from student_train.config import Config
    from student_train.distillation import Distillation
    from student_train.errors import TrainError
    from student_train.losses.blockwise import LossOutput, Projection
    from student_train.losses.fused_linear import LossSpec, fused_loss
    from student_train.losses.targets import Targets, TargetSpec, targets_of
    from student_train.training.optimizer import learning_rate, make_optimizer
    from student_train.training.train_step import ScaledBatch, TrainStep

_MODULE_OF = {
    "Config": "config",
    "Distillation": "distillation",
    "LossOutput": "losses.blockwise",
    "LossSpec": "losses.fused_linear",
    "Projection": "losses.blockwise",
    "ScaledBatch": "training.train_step",
    "TargetSpec": "losses.targets",
    "Targets": "losses.targets",
    "TrainError": "errors",
    "TrainStep": "training.train_step",
    "fused_loss": "losses.fused_linear",
    "learning_rate": "training.optimizer",
    "make_optimizer": "training.optimizer",
    "targets_of": "losses.targets",
}

__all__ = [
    "Config",
    "Distillation",
    "LossOutput",
    "LossSpec",
    "Projection",
    "ScaledBatch",
    "TargetSpec",
    "Targets",
    "TrainError",
    "TrainStep",
    "fused_loss",
    "learning_rate",
    "make_optimizer",
    "targets_of",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'student_train' has no attribute {name!r}")
    return getattr(importlib.import_module(f"student_train.{_MODULE_OF[name]}"), name)
