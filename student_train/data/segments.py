"""Segments of a cache that is trained on while it is written.

A run is a sequence of legs, each with a plan of its own (`sampler.py`). Without `--follow` there is one leg: the whole
cache, or all caches, for as many passes as the run has steps. With `--follow`, a segment is the set of shards that are
complete when it is cut and that no earlier segment had, and a leg is one pass over a segment. Its order is a pure
function of the seed and the names and digests of its shards. When the cache is complete and every shard had its pass,
the last segment is the whole cache, for all remaining passes. So each row is read once before any is read twice.

Of several caches with `--follow`, the first is the one that grows. A leg is one pass over a segment of it, merged with
as much of each other cache as its share asks for. The others go on from leg to leg where the leg before ended, in the
order of a run without `--follow`.

The shards of a segment depend on the speed of the dump. Therefore segments are recorded in every checkpoint and in the
record of the run, and a run that resumes or repeats takes the recorded ones first.

A run that is ahead of the dump saves its state, logs a line, and waits.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from shards.format.manifest import Manifest, ShardEntry
from shards.format.schema import canonical_json
from shards.live import open_live
from shards.read import Cache
from student_train.config import Config
from student_train.data.mixture import Mixture, num_positions, plan_of, size_of
from student_train.data.sampler import Plan, make_plan
from student_train.errors import CheckpointError, TrainError
from student_train.training.distributed import World

POLL_S = 2.0
"""Seconds between checks for new shards."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leg:
    """Consecutive steps over one plan."""

    caches: tuple[Cache, ...]
    """The caches that the plan orders; with `--follow` the first is a segment."""
    plan: Plan
    """Order of the rows; begins at its own `first_step`."""
    last: int
    """One past the last global step of the leg."""


def whole_leg(config: Config, mixture: Mixture) -> Leg:
    """Return the only leg of a run on complete caches."""
    digests = [cache.manifest_sha256 for cache in mixture.caches]
    plan = plan_of(config, mixture.caches, digests=digests, shares=mixture.shares)
    return Leg(caches=mixture.caches, plan=plan, last=config.max_steps or config.epochs * plan.steps_per_epoch)


class Segments:
    """The segments of one run: the recorded ones, then new ones as the cache grows. Methods are collectives."""

    def __init__(
        self,
        config: Config,
        mixture: Mixture,
        written: list[dict[str, Any]],
        *,
        world: World,
        log: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> None:
        """Prepare the segments of a run.

        Args:
            config: Settings of the run.
            mixture: The complete caches beside the one that grows, and all shares.
            written: Recorded segments, to which new ones are added.
            world: The ranks.
            log: Called with a line when the run starts to wait.
            stopped: Returns whether this rank was asked to stop.
        """
        self.written = written
        """As JSON: `first_step`, `sha256`, `shards` (names), and `passes` (whether it is the whole cache, for all
        remaining passes). Beside other caches also `positions` (tokens with a record), which their rows follow from."""
        self._config, self._world, self._log, self._stopped = config, world, log, stopped
        self._path = config.sources[0].path
        self._mixture = mixture
        self._others = [
            size_of(cache, digest=cache.manifest_sha256, positions=num_positions(cache)) for cache in mixture.caches
        ]
        self._manifest: Manifest | None = None
        self._used: dict[str, ShardEntry] = {}

    @property
    def caches(self) -> tuple[Cache, ...]:
        """The caches of the run; of the one that grows, all shards of the legs so far."""
        assert self._manifest is not None
        shards = tuple(self._used[name] for name in sorted(self._used))
        return Cache.of(self._path, replace(self._manifest, shards=shards)), *self._mixture.caches

    def legs(self, *, total: int, before_waiting: Callable[[], None]) -> Iterator[Leg | None]:
        """Yield the legs of a run of `total` steps; yield None and end when asked to stop while waiting.

        Args:
            total: Steps of the run.
            before_waiting: Called before the run waits for shards.

        Raises:
            TrainError: No new shards for `follow_wait` seconds.
            CheckpointError: Recorded shards are missing.
        """
        first = 0
        for number in itertools.count():
            leg = self.leg(number, first_step=first, total=total, before_waiting=before_waiting)
            yield leg
            if leg is None or leg.last >= total:
                return
            first = leg.last

    def leg(
        self, number: int, *, first_step: int, total: int, before_waiting: Callable[[], None] = lambda: None
    ) -> Leg | None:
        """Return a leg, after waiting for its shards where it is new; None when asked to stop meanwhile.

        Args:
            number: Number of the leg, from 0.
            first_step: Global step at which it begins.
            total: Steps of the run.
            before_waiting: Called before the run waits for shards.

        Raises:
            TrainError: No new shards for `follow_wait` seconds.
            CheckpointError: Recorded shards are missing, or are not those that were recorded.
        """
        recorded = self.written[number] if number < len(self.written) else None
        segment = self._await_segment(recorded, before_waiting)
        if segment is None:
            return None
        manifest, passes, positions = segment
        digest = segment_digest(manifest.shards)
        self._manifest = manifest
        self._used |= {shard.name: shard for shard in manifest.shards}
        if recorded is None:
            entry = {"first_step": first_step, "sha256": digest, "shards": [shard.name for shard in manifest.shards]}
            counted = {"positions": positions} if self._others else {}
            self.written.append({**entry, "passes": passes, **counted})
        elif recorded["sha256"] != digest or recorded["first_step"] != first_step:
            raise CheckpointError(
                f"{self._path}: found shards of digest {digest[:12]} from step {first_step}, expected "
                f"{recorded['sha256'][:12]} from step {recorded['first_step']}, which the run was trained on; train "
                "on the shards that it began with, or name another --out"
            )
        cache = Cache.of(self._path, manifest)
        plan = self._plan(number, cache, first_step)
        last = total if passes else min(total, first_step + plan.steps_per_epoch)
        return Leg(caches=(cache, *self._mixture.caches), plan=plan, last=last)

    def _plan(self, number: int, cache: Cache, first_step: int) -> Plan:
        """Return the order of the rows of a recorded segment, and of those of the other caches that belong to it."""
        segment = self.written[number]
        size = size_of(cache, digest=segment["sha256"], positions=segment.get("positions", 0))
        shares, before, positions = self._mixture.shares, Fraction(0), None
        if shares is not None:
            before = sum((earlier["positions"] for earlier in self.written[:number]), Fraction(0)) / shares[0]
            positions = None if segment["passes"] else size.positions / shares[0]
        return make_plan(
            [size, *self._others],
            batch_tokens=self._config.batch_tokens,
            seed=self._config.seed,
            shares=shares,
            first_step=first_step,
            before=before,
            positions=positions,
        )

    def _await_segment(
        self, recorded: dict[str, Any] | None, before_waiting: Callable[[], None]
    ) -> tuple[Manifest, bool, int] | None:
        """Return what `_find_segment` finds; None when asked to stop meanwhile."""
        started = time.monotonic()
        for attempt in itertools.count():
            segment = self._find_segment(recorded) if self._world.is_main else None
            gathered = self._world.gather((segment, self._stopped()))
            segment = gathered[0][0]
            if segment is not None:
                raw, passes, positions = segment
                return Manifest.from_bytes(raw, where=self._path), passes, positions
            if any(stop for _, stop in gathered):
                return None
            self._wait(attempt, started, before_waiting)
        raise AssertionError("itertools.count does not end")

    def _find_segment(self, recorded: dict[str, Any] | None) -> tuple[bytes, bool, int] | None:
        """Return a segment's manifest, whether it is for all remaining passes, and its positions; None without one yet.

        Positions are counted of a new segment beside other caches, and else 0.
        """
        live = open_live(self._path)
        if live is None:
            return None
        complete = {shard.name: shard for shard in live.cache.manifest.shards}
        if recorded is not None:
            missing = [name for name in recorded["shards"] if name not in complete]
            if missing:
                raise CheckpointError(
                    f"{self._path}: found no {missing[0]}, expected it and {len(recorded['shards']) - 1} "
                    "other shards that the run was trained on; bring them back, or name another --out"
                )
            names, passes = recorded["shards"], recorded["passes"]
        else:
            used = {name for segment in self.written for name in segment["shards"]}
            new = [name for name in complete if name not in used]
            tokens = sum(complete[name].tokens for name in new)
            if not live.complete and tokens < self._config.batch_tokens:
                return None
            names, passes = (new, live.complete and not used) if new else (list(complete), True)
        shards = tuple(complete[name] for name in names)
        manifest = replace(live.cache.manifest, shards=shards)
        positions = 0
        if recorded is None and self._others:
            # The report of a complete cache counts all of its shards.
            counted = manifest if passes else replace(manifest, report={})
            positions = num_positions(Cache.of(self._path, counted))
        return manifest.to_bytes(), passes, positions

    def _wait(self, attempt: int, started: float, before_waiting: Callable[[], None]) -> None:
        limit_s = self._config.follow_wait
        if attempt == 0:
            before_waiting()
            shards = sum(len(segment["shards"]) for segment in self.written)
            self._log(
                f"{self._path}: ahead of the dump, all of {shards} complete shards are used; waiting for "
                f"more, at most {limit_s:,.0f} s"
            )
        if time.monotonic() - started > limit_s:
            raise TrainError(
                f"{self._path}: found no new shards in {limit_s:,.0f} s, expected the dump to continue; check "
                "teacher-dump, then repeat the same command to resume"
            )
        time.sleep(POLL_S)


def segment_digest(shards: tuple[ShardEntry, ...]) -> str:
    """Return the identity of a segment: sha256 over the names and digests of its shards, in order."""
    return hashlib.sha256(canonical_json([[shard.name, shard.sha256] for shard in shards])).hexdigest()
