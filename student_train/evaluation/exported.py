"""Make the model that a run exports: whole parameters, adapters merged, weights in the type of the export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from student_train.model.loading import Student
from student_train.model.lora import add_adapters, merge_adapters
from student_train.objectives.row_score import RowScore
from student_train.training.distributed import World, whole
from student_train.training.run_context import Run


def export_and_score(this: Run, score: Callable[[Run], list[RowScore]]) -> tuple[Any, list[RowScore]]:
    """Return the model as it is exported, on the rank that leads, and its held-out scores. A collective.

    `score` measures the student of a run on all of its ranks.
    """
    config, world = this.config, this.world
    if world.size == 1 or not config.lora_rank:
        if config.lora_rank:
            merge_adapters(this.student.adapted)  # in place
        round_weights(this.student.model, config.export_dtype)
        after = score(this)
        return plain(this.student, world_size=world.size, leads=world.leads), after
    # Adapters of split matrices are not merged in place: the rank that leads scores the whole model.
    model = plain(this.student, world_size=world.size, leads=world.leads, rank=config.lora_rank, seed=config.seed)
    after = []
    if world.leads:
        round_weights(model, config.export_dtype)
        distiller = this.distiller.with_model(model.to(world.device))
        after = score(replace(this, distiller=distiller, world=World(device=world.device)))
    return model, world.gather(after)[0]


def round_weights(model: Any, dtype: str) -> None:
    """Give the floating-point weights of `model` the values that they have in `dtype`, in place."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.dtype != getattr(torch, dtype):
                parameter.copy_(parameter.to(getattr(torch, dtype)))


def plain(student: Student, *, world_size: int, leads: bool, rank: int = 0, seed: int = 0) -> Any:
    """Return the student's model as an ordinary one with whole parameters, on the rank that leads; None elsewhere.

    `rank` is that of its adapters, 0 for none; they are merged. A collective.
    """
    from transformers import AutoModelForCausalLM

    if world_size == 1:
        return merge_adapters(student.adapted) if rank else student.model
    tensors = {}
    for name, p in student.model.named_parameters():
        tensor = whole(p)  # all ranks gather; one keeps
        if leads:
            tensors[name] = tensor
    if not leads:
        return None
    copy_ = AutoModelForCausalLM.from_config(student.model.config, dtype=torch.float32)
    adapted = add_adapters(copy_, rank=rank, seed=seed) if rank else None
    buffers = dict(student.model.named_buffers())  # never split
    with torch.no_grad():
        for name, parameter in copy_.named_parameters():
            parameter.copy_(tensors[name])
        for name, buffer in copy_.named_buffers():
            buffer.copy_(buffers[name])
    copy_.generation_config = student.model.generation_config
    return merge_adapters(adapted) if rank else copy_
