"""All that a run needs before its first step: the first stretch of data, a student split over ranks, held-out rows.

Everything that can be refused by name before training is refused here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import shards
from student_train.config import Config
from student_train.data.layout import PackingLayout, choose_layout
from student_train.data.loader import BatchSpec, require_context
from student_train.data.packing import Packing
from student_train.data.segments import Leg, Segments, plan_of
from student_train.errors import TrainError
from student_train.evaluation.held_out import HeldOutSet, held_out_rows
from student_train.model.compile import compile_layers
from student_train.model.head import find_logit_map
from student_train.model.loading import Student, context_of, load
from student_train.model.lora import add_adapters
from student_train.objectives.base import Objective
from student_train.objectives.choose import choose_objective
from student_train.objectives.distiller import Distiller
from student_train.objectives.same_tokenizer import temperature_column
from student_train.pruning.layer_choice import LayerChoice, choose_by_importance, choose_evenly
from student_train.training.distributed import World, split
from student_train.training.optimizer import make_optimizer
from student_train.training.run_context import Run, Say, interrupted, say_on_stderr
from student_train.training.runtime import Signals


def prepare(
    config: Config,
    cache: shards.Cache | None,
    written: list[dict[str, Any]],
    wanted: Signals,
    world: World,
    say: Say = say_on_stderr,
    layers: LayerChoice | None = None,
    on_teacher: Callable[..., None] = lambda model, tokenizer_dir: None,
) -> Run:
    """Get ready. `written` are the segments so far of a run that follows a growing cache.

    `layers` are those that a run which is continued, or whose control this is, chose before; else they are chosen.
    `on_teacher` is called with the teacher's uncut model and its tokenizer where the student is made from it.
    """
    first_leg, segments = _first_leg(config, cache, written, wanted, world, say)
    cache, total = first_leg.cache, config.max_steps or first_leg.last
    manifest = cache.manifest
    temperature_column(config, cache)  # refuse before the model is loaded
    student = load(
        config.student,
        layers=config.student_layers,
        teacher=manifest.teacher,
        shards_tokenizer=cache.tokenizer_dir,
        seed=config.seed,
        choose=partial(_choose, config=config, cache=cache, world=world, say=say, known=layers),
        on_teacher=partial(on_teacher, tokenizer_dir=cache.tokenizer_dir),
        log=say if world.leads else lambda line: None,
    )
    objective = choose_objective(config, student, cache, device=world.device)
    logit_map = find_logit_map(student.model)
    if config.lora_rank:
        student.adapted = add_adapters(student.model, rank=config.lora_rank, seed=config.seed)
    layout = world.gather(_layout(student, objective, world, say))[0]
    if config.gradient_checkpointing:
        _recompute_activations(student.model)
    if config.compile:
        compile_layers(student.model, device_type=world.device.type)
    if objective.notice:
        say(objective.notice)
    distiller = Distiller(student.model, objective, dtype=config.dtype, layout=layout.name, logit_map=logit_map)
    distiller = split(distiller.to(world.device), world)
    packing = Packing(micro_tokens=config.micro_tokens, layout=layout.name, widest=layout.widest)
    batches = BatchSpec(batcher=objective, packing=packing, held_out=config.held_out)
    held_out = HeldOutSet(_held_out_rows(config, cache, objective, say=say), objective, packing)
    return Run(
        config=config,
        out=Path(config.out),
        student=student,
        distiller=distiller,
        optimizer=make_optimizer(student.model, config),
        world=world,
        first_leg=first_leg,
        segments=segments,
        objective=objective,
        batches=batches,
        total=total,
        held_out=held_out,
        wanted=wanted,
        say=say,
    )


def _first_leg(
    config: Config,
    cache: shards.Cache | None,
    written: list[dict[str, Any]],
    wanted: Signals,
    world: World,
    say: Say,
) -> tuple[Leg, Segments | None]:
    """Return the first stretch of data; of a growing cache also its segments. A collective."""
    if cache is not None:
        plan = plan_of(config, cache, digest=cache.manifest_sha256)
        return Leg(cache=cache, plan=plan, last=config.max_steps or config.epochs * plan.steps_per_epoch), None
    segments = Segments(config, written, world=world, say=say, stopped=lambda: wanted.stop)
    leg = segments.leg(0, first_step=0, total=config.max_steps)
    if leg is None:
        raise interrupted(Path(config.out), 0, config.max_steps)
    return leg, segments


def _held_out_rows(config: Config, cache: shards.Cache, objective: Objective, *, say: Say) -> list[Any]:
    """Return the held-out rows that the student can read and that have a label."""
    rows = held_out_rows(cache, fraction=config.held_out, max_tokens=config.held_out_tokens)
    rows, left_out = objective.readable(rows)
    for reason, count in left_out.items():
        say(f"held-out {reason}: {count}")
    if config.held_out > 0 and config.held_out_tokens > 0 and not rows:
        raise TrainError(
            f"{config.shards}: found no held-out document at a share of {config.held_out}, expected at least one; "
            "raise --held-out, dump more documents, or give --held-out 0 to go without"
        )
    return rows


def _choose(
    model: Any,
    keep: int,
    *,
    unfit: str,
    config: Config,
    cache: shards.Cache,
    world: World,
    say: Say,
    known: LayerChoice | None,
) -> LayerChoice:
    """Return the layers to keep, the same on all ranks; a collective where they are measured."""
    if known is not None:
        return known
    if not unfit:  # its tokens are the cache's
        _require_context(cache, context_of(model))
    choice = None
    if config.layer_choice == "even":
        choice = choose_evenly(model, keep)
    elif world.leads:
        if not unfit:
            say("measuring the influence of each layer on the cache's rows")
        choice = choose_by_importance(model, keep, cache=cache, held_out=config.held_out, unfit=unfit)
    choice = world.gather(choice)[0]
    assert choice is not None
    say(choice.describe())
    return choice


def _recompute_activations(model: Any) -> None:
    """Turn on gradient checkpointing. Raises: TrainError where the model has none."""
    try:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError:
        raise TrainError(
            f"gradient-checkpointing: found a {type(model).__name__}, which cannot recompute its activations; expected "
            "a model that transformers can checkpoint; leave the option out"
        ) from None


def _layout(student: Student, objective: Objective, world: World, say: Say) -> PackingLayout:
    """Return how rows share a sequence."""
    model = student.model.to(world.device)
    layout = choose_layout(model, longest=objective.longest_row, context=student.max_row_tokens)
    if layout.reason:
        say(layout.reason)
    return layout


def _require_context(cache: shards.Cache, max_row_tokens: int) -> None:
    window_tokens = cache.manifest.settings.get("window_tokens")
    require_context(cache, max_row_tokens=max_row_tokens, window_tokens=window_tokens)
