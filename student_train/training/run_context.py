"""The parts of a prepared run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from student_train.config import Config
from student_train.data.loader import BatchSpec
from student_train.data.segments import Leg, Segments
from student_train.errors import Interrupted
from student_train.evaluation.held_out import HeldOutSet
from student_train.model.loading import Student
from student_train.objectives.base import Objective
from student_train.training.distributed import World
from student_train.training.runtime import Signals

Say = Callable[[str], None]


def say_on_stderr(line: str) -> None:
    """Print a line for people."""
    print(line, file=sys.stderr, flush=True)


@dataclass(kw_only=True, slots=True)
class Run:
    """What one run needs at hand."""

    config: Config
    out: Path
    student: Student
    distiller: torch.nn.Module
    optimizer: torch.optim.Optimizer
    world: World
    first_leg: Leg
    segments: Segments | None
    objective: Objective
    batches: BatchSpec
    total: int
    held_out: HeldOutSet
    wanted: Signals
    say: Say
    """Prints a line for people."""


def interrupted(out: Path, step: int, total: int) -> Interrupted:
    return Interrupted(f"{out}: stopped at step {step} of {total}; run the same command to go on from there")
