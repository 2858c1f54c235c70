"""The caches of a run: opened, with their shares, their identity and their order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import shards
from shards.format.schema import canonical_json
from student_train.config import Config
from student_train.data.sampler import CacheSize, Plan, make_plan
from student_train.errors import TrainError
from student_train.weighted_shards import shares_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """Complete caches, at least one, and how much of the training each has."""

    caches: tuple[shards.Cache, ...]
    """The caches, in the order of the command line."""
    shares: tuple[Fraction, ...] | None
    """Share of the tokens with loss that each cache has; None where each row is read once an epoch."""

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What identifies each cache and its share, as JSON can hold it."""
        shares = self.shares or (None,) * len(self.caches)
        return [
            {"manifest_sha256": cache.manifest_sha256, "share": None if share is None else float(share)}
            for cache, share in zip(self.caches, shares, strict=True)
        ]

    @property
    def sha256(self) -> str:
        """Identity of the data: of one cache its manifest's, of several that of `entries`."""
        if len(self.caches) == 1:
            return self.caches[0].manifest_sha256
        return hashlib.sha256(canonical_json(self.entries)).hexdigest()


def open_mixture(config: Config) -> Mixture:
    """Open the caches of a run. Only manifests are read.

    Raises:
        TrainError: One cache is named twice.
        shards.ShardError: A cache is damaged, incomplete or unreachable.
    """
    caches = tuple(shards.open(source.path) for source in config.sources)
    seen: dict[str, str] = {}
    for source, cache in zip(config.sources, caches, strict=True):
        other = seen.setdefault(cache.manifest_sha256, source.path)
        if other is not source.path:
            raise TrainError(
                f"shards: found the cache of manifest {cache.manifest_sha256[:12]} as {other} and as {source.path}, "
                "expected each cache once; name it once, with the sum of the weights"
            )
    return Mixture(caches=caches, shares=shares_of(config.sources) if len(caches) > 1 else None)


def describe_entries(entries: Sequence[dict[str, Any]]) -> str:
    """Return caches for a message, from what `Mixture.entries` or the record of a single cache holds."""
    texts = []
    for entry in entries:
        share = entry.get("share")
        texts.append(str(entry["manifest_sha256"])[:12] + (f"={share:g}" if share else ""))
    return " + ".join(texts)


def plan_of(
    config: Config,
    caches: Sequence[shards.Cache],
    *,
    digests: Sequence[str],
    shares: Sequence[Fraction] | None = None,
    first_step: int = 0,
) -> Plan:
    """Return the plan of caches, or of a part of one.

    Args:
        config: Settings of the run.
        caches: The caches.
        digests: Identity of each.
        shares: As in `make_plan`.
        first_step: Global step at which the first epoch begins.
    """
    sizes = [
        CacheSize(
            manifest_sha256=digest,
            chunk_rows=tuple(cache.chunk_rows(i) for i in range(len(cache))),
            tokens=cache.tokens,
            positions=0 if shares is None else num_positions(cache),
        )
        for cache, digest in zip(caches, digests, strict=True)
    ]
    return make_plan(sizes, batch_tokens=config.batch_tokens, seed=config.seed, shares=shares, first_step=first_step)


def num_positions(cache: shards.Cache) -> int:
    """Return the number of tokens that have a record.

    The manifest tells: a row of a document has one token without a record, and the report of responses counts them.
    Only responses without a report are read.
    """
    manifest = cache.manifest
    if not manifest.layout.has_responses:
        return cache.tokens - cache.rows
    if "positions" in manifest.report:
        return int(manifest.report["positions"])
    return sum(len(chunk.tail_mass) for chunk in cache)


def shares_of_positions(mixture: Mixture) -> tuple[Fraction, ...]:
    """Return the share of the tokens with a record that each cache has in an epoch."""
    if mixture.shares is not None or len(mixture.caches) == 1:
        return mixture.shares or (Fraction(1),)
    counts = [num_positions(cache) for cache in mixture.caches]
    return tuple(Fraction(count, max(1, sum(counts))) for count in counts)
