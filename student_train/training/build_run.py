"""Build a run: first stretch of data, student, objective and held-out rows.

Everything that can be refused by name before training is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import shards
from student_train.config import Config
from student_train.data.loader import require_context
from student_train.data.mixture import Mixture
from student_train.data.segments import Leg, Segments, whole_leg
from student_train.errors import TrainError
from student_train.evaluation.completions import SamplePrompts
from student_train.evaluation.held_out import held_out_rows
from student_train.model.compile import compile_layers
from student_train.model.head import find_logit_map
from student_train.model.loading import Student, context_of, load
from student_train.model.lora import add_adapters
from student_train.model.quantization import add_rounding
from student_train.objectives.choose import choose_objectives
from student_train.pruning.layer_choice import LayerChoice, choose_by_influence, choose_evenly
from student_train.training.distributed import apply_fsdp
from student_train.training.learner import held_out_rule, held_out_sets, make_learner, require_records
from student_train.training.optimizer import make_optimizer
from student_train.training.run_context import RunContext, first_with_responses, interrupted
from student_train.training.runtime import Runtime
from student_train.training.state import Handover


def build_run(
    config: Config,
    mixture: Mixture,
    handover: Handover,
    runtime: Runtime,
    *,
    on_teacher: Callable[..., None] = lambda model, cache, prompts: None,
) -> RunContext:
    """Return a run that is ready to train. A collective.

    Args:
        config: Settings, with `dtype` settled.
        mixture: The caches.
        handover: Segments and layers of the run that is continued, or whose control this is.
        runtime: Ranks, signals and log.
        on_teacher: Called with the teacher's uncut model, the cache and the prompts to complete where the student is
            made from it.

    Raises:
        TrainError: Settings, student and shards do not fit together.
    """
    first_leg, segments = _first_leg(config, mixture, handover, runtime)
    caches = first_leg.caches
    require_records(config, caches)  # refuses before the model is loaded
    prompts = _sample_prompts(config, caches)
    student = _load_student(config, caches, handover, runtime, partial(on_teacher, cache=caches[0], prompts=prompts))
    chosen = choose_objectives(config, student, caches, device=runtime.world.device)
    objective = chosen.whole
    logit_map = find_logit_map(student.model)
    if config.lora_rank:
        student = replace(student, adapted=add_adapters(student.model, rank=config.lora_rank, seed=config.seed))
    if config.quantize:
        add_rounding(student.model, config.quantize)
    learner = make_learner(config, student, caches, chosen, logit_map=logit_map, world=runtime.world, log=runtime.log)
    if config.gradient_checkpointing:
        _recompute_activations(student.model)
    if config.compile:
        compile_layers(student.model, device_type=runtime.world.device.type)
    if objective.notice:
        runtime.log(objective.notice)
    return RunContext(
        config=config,
        student=student,
        objective=objective,
        distiller=apply_fsdp(learner.distiller.to(runtime.world.device), runtime.world),
        optimizer=make_optimizer(student.model, config),
        first_leg=first_leg,
        segments=segments,
        batches=learner.batches,
        total_steps=config.max_steps or first_leg.last,
        prompts=prompts,
        held_out=held_out_sets(config, caches, chosen, learner.batches.packing, mixture=mixture, log=runtime.log),
        runtime=runtime,
    )


def _first_leg(config: Config, mixture: Mixture, handover: Handover, runtime: Runtime) -> tuple[Leg, Segments | None]:
    """Return the first stretch of data; of a growing cache also its segments. A collective."""
    if not mixture.follows:
        return whole_leg(config, mixture), None
    segments = Segments(
        config, mixture, handover.segments, world=runtime.world, log=runtime.log, stopped=lambda: runtime.signals.stop
    )
    leg = segments.leg(0, first_step=0, total=config.max_steps)
    if leg is None:
        raise interrupted(Path(config.out), 0, config.max_steps)
    return leg, segments


def _load_student(
    config: Config,
    caches: Sequence[shards.Cache],
    handover: Handover,
    runtime: Runtime,
    on_teacher: Callable[..., None],
) -> Student:
    cache = caches[0]
    return load(
        config.student,
        layers=config.student_layers,
        teacher=cache.manifest.teacher,
        shards_tokenizer=cache.tokenizer_dir,
        seed=config.seed,
        choose=partial(_choose_layers, config=config, caches=caches, runtime=runtime, known=handover.layers),
        on_teacher=on_teacher,
        log=runtime.log,
    )


def _choose_layers(
    model: Any,
    keep: int,
    *,
    unfit: str,
    config: Config,
    caches: Sequence[shards.Cache],
    runtime: Runtime,
    known: LayerChoice | None,
) -> LayerChoice:
    """Return the layers to keep, the same on all ranks. A collective where they are measured, on the first cache."""
    if known is not None:
        return known
    cache = caches[0]
    if not unfit:  # the model reads the cache's tokens
        window_tokens = cache.manifest.settings.get("window_tokens")
        require_context(cache, max_row_tokens=context_of(model), window_tokens=window_tokens)
    choice = None
    if config.layer_choice == "even":
        choice = choose_evenly(model, keep)
    elif runtime.world.is_main:
        if not unfit:
            runtime.log("measuring the influence of each layer on the cache's rows")
        rule = held_out_rule(config, caches)
        choice = choose_by_influence(model, keep, method=config.layer_choice, cache=cache, held_out=rule, unfit=unfit)
    main_choice: LayerChoice = runtime.world.gather(choice)[0]
    runtime.log(main_choice.describe())
    return main_choice


def _recompute_activations(model: Any) -> None:
    """Turn on gradient checkpointing.

    Raises:
        TrainError: The model has none.
    """
    try:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError:
        raise TrainError(
            f"gradient-checkpointing: found a {type(model).__name__}, which cannot recompute its activations; expected "
            "a model that transformers can checkpoint; leave the option out"
        ) from None


def _sample_prompts(config: Config, caches: Sequence[shards.Cache]) -> SamplePrompts:
    """Return the prompts to complete: of a cache of responses the first held-out ones, or else its first ones."""
    cache = first_with_responses(caches)
    if cache is None:
        return SamplePrompts()
    rows = held_out_rows(cache, rule=held_out_rule(config, caches), max_tokens=config.held_out_tokens)
    first = cache[0]
    return SamplePrompts.of(rows or [first.row(r) for r in range(len(first.rows))])
