"""A cache that grows shard by shard, as teacher-dump would write it, and the rows that a run reads of it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from shards.format.manifest import MANIFEST_NAME, Manifest
from shards.live import DRAFT_NAME
from student_train.data.sampler import rows_of_step
from student_train.data.segments import Leg


class Dump:
    """Stands in for teacher-dump: lets the shards of a finished cache appear one by one in another folder."""

    def __init__(self, whole: Path, place: Path) -> None:
        self.whole, self.place = whole, place
        self.manifest = Manifest.from_bytes((whole / MANIFEST_NAME).read_bytes(), where="whole")
        shutil.copytree(whole / "tokenizer", place / "tokenizer")
        (place / DRAFT_NAME).write_bytes(dataclasses.replace(self.manifest, shards=()).to_bytes())

    def shard(self, i: int) -> None:
        name = self.manifest.shards[i].name
        shutil.copyfile(self.whole / name, self.place / name)
        shutil.copyfile(self.whole / f"{name}.json", self.place / f"{name}.json")

    def finish(self) -> None:
        (self.place / MANIFEST_NAME).write_bytes(self.manifest.to_bytes())


def rows_of(leg: Leg, *, cache: int = 0, world_size: int = 1) -> list[tuple[str, int]]:
    """Return document and window of the rows that a leg reads of a cache, in order, up to the end of one epoch."""
    last = min(leg.last, leg.plan.first_step + leg.plan.steps_per_epoch)
    refs = [
        ref
        for step in range(leg.plan.first_step, last)
        for rank in range(world_size)
        for ref in rows_of_step(leg.plan, step=step, rank=rank, world_size=world_size)
        if ref.cache == cache
    ]
    infos = [leg.caches[cache][ref.chunk].rows[ref.row] for ref in refs]
    return [(info.document, info.window) for info in infos]
