"""The caches of a run: opened, with their shares, their identity and their order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import shards
from shards.format.schema import canonical_json
from shards.live import open_live
from student_train.config import Config
from student_train.data.sampler import CacheSize, Plan, make_plan
from student_train.errors import TrainError
from student_train.weighted_shards import shares_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """The caches of a run, and how much of the training each has."""

    caches: tuple[shards.Cache, ...]
    """The complete caches, in the order of the command line."""
    shares: tuple[Fraction, ...] | None
    """Share of the tokens with loss that each cache of the run has; None where each row is read once an epoch."""
    follows: bool = False
    """Whether the run has one more cache, before `caches`, that may still be written (`segments.py`)."""

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What identifies each cache and its share, as JSON can hold it. A followed cache has no digest, but ""."""
        digests = [""] * self.follows + [cache.manifest_sha256 for cache in self.caches]
        shares = self.shares or (None,) * len(digests)
        return [
            {"manifest_sha256": digest, "share": None if share is None else float(share)}
            for digest, share in zip(digests, shares, strict=True)
        ]

    @property
    def sha256(self) -> str:
        """Identity of the data: of one cache its manifest's, of several that of `entries`; "" for a followed one."""
        entries = self.entries
        if len(entries) == 1:
            return str(entries[0]["manifest_sha256"])
        return hashlib.sha256(canonical_json(entries)).hexdigest()


def open_mixture(config: Config) -> Mixture:
    """Open the caches of a run. Only manifests are read.

    Raises:
        TrainError: One cache is named twice, or more than one cache is still written.
        shards.ShardError: A cache is damaged, incomplete or unreachable.
    """
    sources = config.sources[1:] if config.follow else config.sources
    if config.follow:
        _require_complete(config.sources[0].path, [source.path for source in sources])
    caches = tuple(shards.open(source.path) for source in sources)
    seen = _digest_of_followed(config.sources[0].path) if config.follow else {}
    for source, cache in zip(sources, caches, strict=True):
        other = seen.setdefault(cache.manifest_sha256, source.path)
        if other is not source.path:
            raise TrainError(
                f"shards: found the cache of manifest {cache.manifest_sha256[:12]} as {other} and as {source.path}, "
                "expected each cache once; name it once, with the sum of the weights"
            )
    shares = shares_of(config.sources) if len(config.sources) > 1 else None
    return Mixture(caches=caches, shares=shares, follows=config.follow)


def _digest_of_followed(path: str) -> dict[str, str]:
    """Return the manifest's digest of a cache with its path; {} while it is written."""
    live = open_live(path)
    return {live.cache.manifest_sha256: path} if live is not None and live.complete else {}


def _require_complete(followed: str, others: Sequence[str]) -> None:
    """Raise TrainError if one of the caches beside the followed one is still written."""
    for path in others:
        live = open_live(path)
        if live is not None and not live.complete:
            raise TrainError(
                f"follow: found {path} still being written beside {followed}, expected one such cache, the first of "
                f"--shards; name {path} first if {followed} is complete, or wait for it"
            )


def describe_entries(entries: Sequence[dict[str, Any]]) -> str:
    """Return caches for a message, from what `Mixture.entries` or the record of a single cache holds."""
    texts = []
    for entry in entries:
        share = entry.get("share")
        texts.append((str(entry["manifest_sha256"])[:12] or "followed") + (f"={share:g}" if share else ""))
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
        size_of(cache, digest=digest, positions=0 if shares is None else num_positions(cache))
        for cache, digest in zip(caches, digests, strict=True)
    ]
    return make_plan(sizes, batch_tokens=config.batch_tokens, seed=config.seed, shares=shares, first_step=first_step)


def size_of(cache: shards.Cache, *, digest: str, positions: int) -> CacheSize:
    """Return what the order of a run needs to know of a cache.

    Args:
        cache: The cache, or a part of one.
        digest: Its identity.
        positions: As `num_positions` counts them.
    """
    chunk_rows = tuple(cache.chunk_rows(i) for i in range(len(cache)))
    return CacheSize(manifest_sha256=digest, chunk_rows=chunk_rows, tokens=cache.tokens, positions=positions)


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
    if mixture.shares is not None or len(mixture.entries) == 1:
        return mixture.shares or (Fraction(1),)
    counts = [num_positions(cache) for cache in mixture.caches]
    return tuple(Fraction(count, max(1, sum(counts))) for count in counts)
