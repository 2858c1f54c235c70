"""Make the model that a run exports and score it: whole parameters, adapters merged, weights in the export's type."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from student_train.errors import Interrupted
from student_train.evaluation.run_scores import score_run
from student_train.model.loading import Student
from student_train.model.lora import add_adapters, merge_adapters
from student_train.objectives.row_score import RowScore
from student_train.training.distributed import World, full_tensor
from student_train.training.run_context import RunContext

_TITLE = "held-out, after"


def export_and_score(context: RunContext) -> tuple[Any, list[RowScore]]:
    """Return the model as it is exported, on the main rank (None elsewhere), and its scores. A collective.

    Raises:
        Interrupted: A rank was asked to stop; the last step is saved.
    """
    config, world = context.config, context.world
    if world.size == 1 or not config.lora_rank:
        if config.lora_rank:
            merge_adapters(context.student.adapted)  # in place
        round_weights(context.student.model, config.export_dtype)
        after = score_run(context, _TITLE, step=context.total_steps)
        return whole_model(context.student, world), after
    # Adapters of sharded matrices cannot be merged in place. The main rank scores the whole model.
    model = whole_model(context.student, world, lora_rank=config.lora_rank, seed=config.seed)
    scores: list[RowScore] | None = None
    if world.is_main:
        round_weights(model, config.export_dtype)
        distiller = context.distiller.with_model(model.to(world.device))
        runtime = replace(context.runtime, world=World(device=world.device))
        alone = replace(context, distiller=distiller, runtime=runtime)
        with suppress(Interrupted):  # the other ranks wait: they hear of it below
            scores = score_run(alone, _TITLE, step=context.total_steps)
    scores = world.gather(scores)[0]
    if scores is None:
        raise context.interrupted(context.total_steps)
    return model, scores


def round_weights(model: Any, dtype: str) -> None:
    """Give the floating-point weights of `model` the values that they have in `dtype`, in place."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.dtype != getattr(torch, dtype):
                parameter.copy_(parameter.to(getattr(torch, dtype)))


def whole_model(student: Student, world: World, *, lora_rank: int = 0, seed: int = 0) -> Any:
    """Return the student's model with whole parameters, on the main rank; None elsewhere. A collective.

    Args:
        student: The student, sharded over the ranks.
        world: All ranks.
        lora_rank: Rank of adapters to merge; 0 for none.
        seed: Seed of the run, which the adapters were made from.
    """
    from transformers import AutoModelForCausalLM

    is_sharded = any(hasattr(parameter, "full_tensor") for parameter in student.model.parameters())
    if world.size == 1 and not is_sharded:
        return merge_adapters(student.adapted) if lora_rank else student.model
    tensors = {}
    for name, parameter in student.model.named_parameters():
        tensor = full_tensor(parameter)  # all ranks gather; one keeps
        if world.is_main:
            tensors[name] = tensor
    if not world.is_main:
        return None
    model = AutoModelForCausalLM.from_config(student.model.config, dtype=torch.float32)
    adapted = add_adapters(model, rank=lora_rank, seed=seed) if lora_rank else None
    buffers = dict(student.model.named_buffers())  # never sharded
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    model.generation_config = student.model.generation_config
    return merge_adapters(adapted) if lora_rank else model
