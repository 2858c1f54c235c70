"""How is a cache trained from while it grows? In segments: what is complete when the one before is used up.

Contract: a run goes over legs, one after the other, each with a plan of its own (`order.py`). Without `--follow` there
is one leg, the whole cache, for as many passes as the run has steps. With it, a segment is the set of shards that are
complete when it is cut and that no earlier segment had, and a leg is one pass over a segment. Its order is a pure
function of (digest of its shards' names and contents, seed). Which shards a segment has depends on the dump's speed; so
segments are written down, in every checkpoint and in the run's record, and a run that continues or repeats takes the
written ones first. When the cache is complete and every shard had its pass, the last segment is the whole cache, for
all passes that are left. So each row is read once before any is read twice.

A run that has run ahead of the dump saves its state, says so, and waits.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from shards.format.manifest import Manifest, ShardEntry
from shards.format.schema import canonical_json
from shards.live import open_live
from shards.read import Cache
from student_train.config import Config
from student_train.data.sampler import Plan, make_plan
from student_train.errors import CheckpointError, TrainError
from student_train.training.distributed import World

POLL_S = 2.0
"""Pause between looks at a cache that has nothing new."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leg:
    """A stretch of steps over one plan."""

    cache: Cache
    """What the plan's chunks are chunks of."""
    plan: Plan
    """Begins at its own `first_step`."""
    last: int
    """Global step at which the leg ends, exclusive."""


def plan_of(config: Config, cache: Cache, *, digest: str, first_step: int = 0) -> Plan:
    """Return the order of a cache, or a part of one, whose identity is `digest`."""
    return make_plan(
        tuple(cache.chunk_rows(i) for i in range(len(cache))),
        tokens=cache.tokens,
        batch_tokens=config.batch_tokens,
        manifest_sha256=digest,
        seed=config.seed,
        first_step=first_step,
    )


class Segments:
    """The segments of one run: those that are written down, then new ones as the cache grows. Collectives."""

    def __init__(
        self,
        config: Config,
        written: list[dict[str, Any]],
        *,
        world: World,
        say: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> None:
        self.written = written
        """JSON: `first_step`, `sha256`, `shards` (names) and `passes` (whether it is the whole cache, for good)."""
        self._config, self._world, self._say, self._stopped = config, world, say, stopped
        self._manifest: Manifest | None = None
        self._used: dict[str, ShardEntry] = {}

    @property
    def cache(self) -> Cache:
        """All shards of the legs so far, as a cache."""
        assert self._manifest is not None
        shards = tuple(self._used[name] for name in sorted(self._used))
        return Cache.of(self._config.shards, replace(self._manifest, shards=shards))

    def legs(self, *, total: int, before_waiting: Callable[[], None]) -> Iterator[Leg | None]:
        """Yield the legs of a run of `total` steps; None, and the end, when asked to stop while waiting.

        Raises: TrainError when nothing came for `follow_wait` seconds, CheckpointError where written shards are gone.
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
        """Return leg `number`, waiting for its shards where it is new; None when asked to stop meanwhile."""
        known = self.written[number] if number < len(self.written) else None
        started = time.monotonic()
        for look in itertools.count():
            mine = self._look(known) if self._world.is_main else None
            found = self._world.gather((mine, self._stopped()))
            (raw, passes), stop = found[0][0] or (None, False), any(asked for _, asked in found)
            if raw is not None:
                break
            if stop:
                return None
            self._wait(look, started, before_waiting)
        manifest = Manifest.from_bytes(raw, where=self._config.shards)
        cache = Cache.of(self._config.shards, manifest)
        digest = segment_digest(manifest.shards)
        self._manifest = manifest
        self._used |= {shard.name: shard for shard in manifest.shards}
        if known is None:
            names = [shard.name for shard in manifest.shards]
            self.written.append({"first_step": first_step, "sha256": digest, "shards": names, "passes": passes})
        elif known["sha256"] != digest or known["first_step"] != first_step:
            raise CheckpointError(
                f"{self._config.shards}: found shards of digest {digest[:12]} from step {first_step}, expected "
                f"{known['sha256'][:12]} from step {known['first_step']}, which the run was trained on; train on the "
                "shards that it began with, or name another --out"
            )
        plan = plan_of(self._config, cache, digest=digest, first_step=first_step)
        return Leg(cache=cache, plan=plan, last=total if passes else min(total, first_step + plan.steps_per_epoch))

    def _look(self, known: dict[str, Any] | None) -> tuple[bytes, bool] | None:
        """Return the manifest of a segment, and whether it is for all passes to come; None where there is none yet."""
        now = open_live(self._config.shards)
        if now is None:
            return None
        there = {shard.name: shard for shard in now.cache.manifest.shards}
        if known is not None:
            lacking = [name for name in known["shards"] if name not in there]
            if lacking:
                raise CheckpointError(
                    f"{self._config.shards}: found no {lacking[0]}, expected it and {len(known['shards']) - 1} other "
                    "shards that the run was trained on; bring them back, or name another --out"
                )
            names, passes = known["shards"], known["passes"]
        else:
            seen = {name for segment in self.written for name in segment["shards"]}
            new = [name for name in there if name not in seen]
            tokens = sum(there[name].tokens for name in new)
            if not now.complete and tokens < self._config.batch_tokens:
                return None
            names, passes = (new, now.complete and not seen) if new else (list(there), True)
        shards = tuple(there[name] for name in names)
        return replace(now.cache.manifest, shards=shards).to_bytes(), passes

    def _wait(self, look: int, started: float, before_waiting: Callable[[], None]) -> None:
        limit_s = self._config.follow_wait
        if look == 0:
            before_waiting()
            shards = sum(len(segment["shards"]) for segment in self.written)
            self._say(
                f"{self._config.shards}: ahead of the dump, all of {shards} complete shards are used; waiting for "
                f"more, at most {limit_s:,.0f} s"
            )
        if time.monotonic() - started > limit_s:
            raise TrainError(
                f"{self._config.shards}: found no new shards in {limit_s:,.0f} s, expected the dump to go on; see to "
                "teacher-dump, then give the same command again to go on from here"
            )
        time.sleep(POLL_S)


def segment_digest(shards: tuple[ShardEntry, ...]) -> str:
    """Return the identity of some shards: sha256 over their names and their contents' digests, in order."""
    return hashlib.sha256(canonical_json([[shard.name, shard.sha256] for shard in shards])).hexdigest()
