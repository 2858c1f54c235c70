"""Rankings: groups of samples in order of preference, and their pass@k."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evalkit.scoring.stats import pass_at_k


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """Groups of samples, the preferred group first. A ranker has no preference within a group.

    Samples outside all groups are never picked. A ranking without groups has no preference at all.
    """

    groups: tuple[tuple[int, ...], ...]
    """Sample indices of each group; no group is empty."""
    scores: tuple[float, ...]
    """Score of each group, falling."""

    @classmethod
    def of(cls, scored: Iterable[tuple[float, Sequence[int]]]) -> Ranking:
        """Return the ranking of groups with scores. Groups of equal score are merged; empty groups are left out."""
        merged: dict[float, list[int]] = {}
        for score, samples in sorted(scored, key=lambda item: -item[0]):
            if samples:
                merged.setdefault(score, []).extend(samples)
        groups = tuple(tuple(sorted(samples)) for samples in merged.values())
        return cls(groups=groups, scores=tuple(merged))

    def picks(self, k: int) -> tuple[int, ...]:
        """Return the number of picks from each group: one from each of the first k groups, then round robin.

        Args:
            k: Number of picks.
        """
        count = min(k, len(self.groups))
        if not count:
            return ()
        return tuple(k // count + (i < k % count) for i in range(count))

    def pass_at_k(self, passed: Sequence[bool], k: int) -> float:
        """Return the expected pass@k by the rule of CodeT's authors (microsoft/CodeT, src/evaluation.py).

        A pick from a group fails with the share of its samples that fail. Picks are independent. A ranking without
        groups gives the unbiased pass@k of all samples.

        Args:
            passed: Whether each sample passes the benchmark's tests.
            k: Number of picks.

        Raises:
            ValueError: The ranking has no groups and there are fewer than k samples.
        """
        if not self.groups:
            return pass_at_k(len(passed), sum(passed), k)
        all_fail = 1.0
        for group, picks in zip(self.groups, self.picks(k), strict=False):
            share_failed = sum(not passed[sample] for sample in group) / len(group)
            all_fail *= share_failed**picks
        return 1.0 - all_fail

    def order(self, num_samples: int) -> tuple[int, ...]:
        """Return sample indices, one of each group in turn, then the samples outside all groups.

        Args:
            num_samples: Number of samples of the problem.
        """
        longest = max(map(len, self.groups), default=0)
        ranked = [group[turn] for turn in range(longest) for group in self.groups if turn < len(group)]
        return (*ranked, *sorted(set(range(num_samples)) - set(ranked)))
