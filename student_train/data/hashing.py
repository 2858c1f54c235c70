"""Seeded permutations, and the rule that decides which rows are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from shards.format.chunk import Int64, RowInfo
from shards.format.messages import opening_sha256

ORDER_VERSION = 1
"""Version of the order; increase it if the order of any cache changes."""


def permutation(count: int, *, key: str) -> Int64:
    """Return a permutation of range(count) that is a function of `key` alone."""
    digest = hashlib.sha256(f"order/{ORDER_VERSION}/{key}".encode()).digest()
    start = np.uint64(int.from_bytes(digest[:8], "little"))
    hashes = mix(np.arange(count, dtype=np.uint64), start)
    return np.argsort(hashes, kind="stable").astype(np.int64)


def mix(counter: npt.NDArray[np.uint64], start: np.uint64) -> npt.NDArray[np.uint64]:
    """Return 64 pseudo-random bits for each counter, equal on every machine and in every release.

    The finaliser of SplitMix64 (Steele, Lea, Flood 2014, figure 16). It is a bijection of 64-bit words, so distinct
    counters have distinct bits.

    Args:
        counter: Numbers of the words.
        start: Seed of the sequence.
    """
    with np.errstate(over="ignore"):
        z = start + (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def is_held_out(document: str, *, fraction: float) -> bool:
    """Return whether a document is kept from training; a pure function of its content.

    Args:
        document: sha256 of the document, hex.
        fraction: Share of documents that are held out.
    """
    if fraction <= 0.0:
        return False
    digest = hashlib.sha256(f"held-out/{document}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2.0**64


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutRule:
    """Which rows are kept from training: a pure function of their content."""

    fraction: float
    """Share of documents, or of conversations, that are held out: 0 to 1."""
    by_conversation: bool = False
    """Whether conversations with the same opening are on one side, in place of each document by itself."""

    @classmethod
    def of(cls, *corpora: Mapping[str, Any], fraction: float) -> Self:
        """Return the rule for all caches of a run: by conversation where one has each turn as a row (`--train-on all`).

        One rule for all of them keeps a row that several caches have on one side.

        Args:
            corpora: `corpus` of the manifest of each cache.
            fraction: Share that is held out, 0 to 1.
        """
        return cls(fraction=fraction, by_conversation=any(corpus.get("train_on") == "all" for corpus in corpora))

    def holds_out(self, info: RowInfo) -> bool:
        """Return whether a row is kept from training."""
        return is_held_out(opening_sha256(info) if self.by_conversation else info.document, fraction=self.fraction)
