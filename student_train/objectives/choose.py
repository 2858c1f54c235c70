"""Choose the objectives of a run: the only place that asks whether student and shards share a tokenizer."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch

import shards
from student_train.config import Config
from student_train.errors import TrainError
from student_train.model.loading import Student
from student_train.objectives.base import CacheObjective, Objective
from student_train.objectives.cross_tokenizer import CrossTokenizer
from student_train.objectives.same_tokenizer import SameTokenizer
from student_train.objectives.several import SeveralObjectives
from student_train.objectives.with_relations import WithRelations


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenObjectives:
    """The objectives of a run, and which of its caches each one is for."""

    by_kind: tuple[CacheObjective, ...]
    """The objectives."""
    kinds: tuple[int, ...]
    """Number of the objective of each cache."""

    @property
    def whole(self) -> Objective:
        """What the run learns: the one objective, or all of them as one."""
        return self.by_kind[0] if len(self.by_kind) == 1 else SeveralObjectives(objectives=self.by_kind)

    @property
    def by_cache(self) -> tuple[CacheObjective, ...]:
        """The objective of each cache."""
        return tuple(self.by_kind[kind] for kind in self.kinds)


def choose_objectives(
    config: Config, student: Student, caches: Sequence[shards.Cache], *, device: torch.device
) -> ChosenObjectives:
    """Return the objectives of a run. Caches whose rows are read alike share one, so their rows share batches.

    Args:
        config: Settings of the run.
        student: The student, on any device, matched with the tokenizer of the first cache.
        caches: The caches, or the first part of a growing one.
        device: Device on which the student trains.

    Raises:
        TrainError: The settings, the student and the shards do not fit together.
    """
    alike: dict[Hashable, list[int]] = {}
    for number, cache in enumerate(caches):
        alike.setdefault(_how_rows_are_read(cache), []).append(number)
    groups = [[caches[i] for i in numbers] for numbers in alike.values()]
    students = [student, *(student.beside(group[0].tokenizer_dir) for group in groups[1:])]
    if any(each.other_tokenizer is None for each in students) and not config.specialist:
        # What compares token by token then has rows to act on, and the others have their own losses.
        across = replace(config, divergence="forward-kl", temperature=1.0)
    else:
        across = config
    has_responses = any(cache.manifest.layout.has_responses for cache in caches)
    some_have_relations = any(_has_relations(each, group[0]) for each, group in zip(students, groups, strict=True))
    objectives = []
    for each, group in zip(students, groups, strict=True):
        settings = config if each.other_tokenizer is None else across
        if some_have_relations and not _has_relations(each, group[0]):
            settings = replace(settings, relations_weight=0.0)  # as rows without relations: they add nothing
        if has_responses and not group[0].manifest.layout.has_responses:
            settings = replace(settings, template="stored")  # documents have nothing to render
        objectives.append(choose_objective(settings, each, group, device=device))
    kind_of = {number: kind for kind, numbers in enumerate(alike.values()) for number in numbers}
    return ChosenObjectives(by_kind=tuple(objectives), kinds=tuple(kind_of[i] for i in range(len(caches))))


def choose_objective(
    config: Config, student: Student, caches: Sequence[shards.Cache], *, device: torch.device
) -> CacheObjective:
    """Return the objective for caches whose rows are read alike.

    Args:
        config: Settings of the run.
        student: The student, on any device, matched with the tokenizer of these caches.
        caches: The caches; at least one.
        device: Device on which the student trains.

    Raises:
        TrainError: The settings, the student and the shards do not fit together.
    """
    skip = max(0, len(caches[0].manifest.tokenizer.prefix_tokens) - 1)
    if student.other_tokenizer is None:
        objective = SameTokenizer.of(config, student, caches, skip=skip)
        return WithRelations.of(objective, config, student, caches) if config.relations_weight else objective
    if config.relations_weight:
        raise TrainError(
            f"relations-weight is {config.relations_weight:g}; found a student with another tokenizer than the shards "
            f"({student.other_tokenizer}), expected the shards' own, as relations compare token by token; leave it out"
        )
    return CrossTokenizer.of(config, student, caches, skip=skip, device=device)


def _has_relations(student: Student, cache: shards.Cache) -> bool:
    return student.other_tokenizer is None and cache.manifest.layout.relations is not None


def _how_rows_are_read(cache: shards.Cache) -> Hashable:
    """Return what caches must share so that one objective reads the rows of all of them."""
    manifest = cache.manifest
    has_responses = manifest.layout.has_responses
    # The chat template, which responses need, is one of the tokenizer's files.
    files = tuple(sorted((file.name, file.sha256) for file in manifest.files)) if has_responses else ()
    return (
        manifest.tokenizer.fingerprint,
        manifest.tokenizer.prefix_tokens,
        manifest.layout.vocab_size,
        manifest.temperatures,
        manifest.layout.absent,
        manifest.layout.relations,
        has_responses,
        files,
    )
