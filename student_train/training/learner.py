"""A student with its objective, and how rows become its batches: what a run and a loop of your own have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import shards
from student_train.config import Config
from student_train.data.hashing import HeldOutRule
from student_train.data.loader import BatchSpec, CacheSpec
from student_train.data.mixture import Mixture, shares_of_positions
from student_train.data.packing import Packing
from student_train.errors import TrainError
from student_train.evaluation.held_out import HeldOutSet, held_out_rows
from student_train.model.head import LogitMap
from student_train.model.loading import Student
from student_train.objectives.choose import ChosenObjectives
from student_train.objectives.distiller import Distiller, layout_on
from student_train.objectives.same_tokenizer import temperature_column
from student_train.objectives.stored_parts import require_stored_parts
from student_train.training.distributed import World
from student_train.training.runtime import LogLine


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """A student that is ready to learn."""

    distiller: Distiller
    """The student and its objective."""
    batches: BatchSpec
    """How rows become batches."""


def require_records(config: Config, caches: Sequence[shards.Cache]) -> None:
    """Check that caches store what the loss needs. No model is needed for this.

    Raises:
        TrainError: One does not.
    """
    for cache in caches:
        temperature_column(config, cache)
        require_stored_parts(config, cache)


def make_learner(
    config: Config,
    student: Student,
    caches: Sequence[shards.Cache],
    chosen: ChosenObjectives,
    *,
    logit_map: LogitMap,
    world: World,
    log: LogLine,
) -> Learner:
    """Return a student with its objective. Its model is moved to the device of this rank. A collective.

    Args:
        config: Settings, with `dtype` settled.
        student: The student, as it will train but not compiled.
        caches: The caches.
        chosen: Their objectives.
        logit_map: What the model does to its logits after the output projection.
        world: All ranks.
        log: Prints a line.
    """
    objective = chosen.whole
    layout = world.gather(layout_on(world.device, student, objective))[0]
    if layout.reason:
        log(layout.reason)
    rule = held_out_rule(config, caches)
    specs = [
        CacheSpec(batcher=each, held_out=rule, kind=kind)
        for each, kind in zip(chosen.by_cache, chosen.kinds, strict=True)
    ]
    return Learner(
        distiller=Distiller(student.model, objective, dtype=config.dtype, layout=layout.name, logit_map=logit_map),
        batches=BatchSpec(caches=tuple(specs), packing=layout.packing(config.micro_tokens)),
    )


def held_out_rule(config: Config, caches: Sequence[shards.Cache]) -> HeldOutRule:
    """Return which rows of the caches of a run are kept from training."""
    return HeldOutRule.of(*(cache.manifest.corpus for cache in caches), fraction=config.held_out)


def held_out_sets(
    config: Config,
    caches: Sequence[shards.Cache],
    chosen: ChosenObjectives,
    packing: Packing,
    *,
    mixture: Mixture,
    log: LogLine,
) -> tuple[HeldOutSet, ...]:
    """Return the held-out rows of each cache that have a label and that the student can read.

    The most tokens of all are shared out as those of the training are.

    Args:
        config: Settings.
        caches: The caches.
        chosen: Their objectives.
        packing: How rows share batches.
        mixture: The same caches with their shares.
        log: Prints a line.

    Raises:
        TrainError: Rows are to be held out, and no cache has one.
    """
    sets, shares, rule = [], shares_of_positions(mixture), held_out_rule(config, caches)
    for cache, share, objective, kind in zip(caches, shares, chosen.by_cache, chosen.kinds, strict=True):
        max_tokens = math.ceil(share * config.held_out_tokens)
        rows = held_out_rows(cache, rule=rule, max_tokens=max_tokens)
        rows, left_out = objective.readable(rows)
        for reason, count in left_out.items():
            log(f"held-out {reason}: {count}")
        if not rows and len(caches) > 1:
            log(f"{cache.store.root}: no held-out document, so it has no held-out figures")
        sets.append(HeldOutSet(rows, objective, packing, kind=kind))
    if config.held_out > 0 and config.held_out_tokens > 0 and not any(each.rows for each in sets):
        raise TrainError(
            f"{config.shard_paths}: found no held-out document at a share of {config.held_out}, expected at least one; "
            "raise --held-out, dump more documents, or use --held-out 0 to train without"
        )
    return tuple(sets)
