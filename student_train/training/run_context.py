"""The parts of a run that is ready to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shards.read import Cache
from student_train.config import Config
from student_train.data.chat_template import StudentTemplate
from student_train.data.loader import BatchSpec
from student_train.data.segments import Leg, Segments
from student_train.errors import Interrupted
from student_train.evaluation.completions import SamplePrompts
from student_train.evaluation.held_out import HeldOutSet
from student_train.model.loading import Student
from student_train.objectives.base import Objective
from student_train.training.distributed import World
from student_train.training.runtime import LogLine, Runtime


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """What a run needs from its first step to its last."""

    config: Config
    """Settings of the run."""
    student: Student
    """The model and where it came from."""
    objective: Objective
    """What the student learns."""
    distiller: torch.nn.Module
    """The model and the objective as one module, sharded over the ranks."""
    optimizer: torch.optim.Optimizer
    """Optimiser of the parameters that train."""
    first_leg: Leg
    """First stretch of data."""
    segments: Segments | None
    """Source of further stretches of a growing cache; None for a complete one."""
    batches: BatchSpec
    """How rows become batches."""
    total_steps: int
    """Optimiser steps of the whole run."""
    held_out: tuple[HeldOutSet, ...]
    """Rows to evaluate on, of each cache."""
    prompts: SamplePrompts
    """Prompts to complete, for people."""
    runtime: Runtime
    """Ranks, signals and log."""

    @property
    def out(self) -> Path:
        """Folder of the run."""
        return Path(self.config.out)

    @property
    def world(self) -> World:
        """All ranks."""
        return self.runtime.world

    @property
    def log(self) -> LogLine:
        """Prints a line for people, on the main rank."""
        return self.runtime.log

    def chat_template(self) -> StudentTemplate | None:
        """Return the chat template of the student's responses; see `template_of`."""
        return template_of(self.config, self.student, self.first_leg.caches)

    def written_segments(self) -> list[dict[str, Any]]:
        """Return the segments of a growing cache so far; [] for a complete one."""
        return self.segments.written if self.segments else []

    def interrupted(self, step: int) -> Interrupted:
        """Return the error of a run that was asked to stop after `step` steps."""
        return interrupted(self.out, step, self.total_steps)


def template_of(config: Config, student: Student, caches: Sequence[Cache]) -> StudentTemplate | None:
    """Return the chat template of the contexts that a student is trained behind; None for documents.

    Of several caches, it is that of the first with responses.
    """
    cache = first_with_responses(caches)
    if cache is None:
        return None
    if config.template == "own" or student.beside(cache.tokenizer_dir).other_tokenizer is not None:
        return StudentTemplate.load(f"student {student.source}", student.tokenizer_dir)
    return StudentTemplate.load("the shards' teacher", cache.tokenizer_dir)


def first_with_responses(caches: Sequence[Cache]) -> Cache | None:
    """Return the first cache of responses; None where all are documents."""
    return next((cache for cache in caches if cache.manifest.layout.has_responses), None)


def interrupted(out: Path, step: int, total_steps: int) -> Interrupted:
    """Return the error of a run that was asked to stop."""
    return Interrupted(f"{out}: stopped at step {step} of {total_steps}; run the same command to resume")
