"""The choice of `combined` on tasks that no table scores: MBPP's train and validation tasks.

Each variant changes one part of the rules. A variant is compared with `combined` and with `srank`, problem by problem,
over all development problems of a model and over those of all models together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.selection.measure import PICKS, estimate, shown
from evalkit.rerank.rankers.combined import RULES, VoteRules, combined_by
from evalkit.rerank.registry import RANKERS
from evalkit.scoring.ranked_problems import RankedProblem
from evalkit.scoring.stats import difference

VARIANTS: dict[str, VoteRules] = {
    "combined": RULES,
    "without trust: tests by times written": replace(RULES, trust_rounds=0),
    "trust twice": replace(RULES, trust_rounds=2),
    "tests counted once": replace(RULES, times_power=0.0),
    "without shared votes": replace(RULES, shares_votes=False),
    "shared votes alone": replace(RULES, own_power=0.0),
    "own votes to the power 1": replace(RULES, own_power=1.0),
    "without the validity rule": replace(RULES, only_valid=False),
    "votes: samples": replace(RULES, size_power=1.0),
    "votes: one per cluster": replace(RULES, size_power=0.0),
    "votes: root of distinct programs": replace(RULES, counts_samples=False),
    "examples first": replace(RULES, examples_first=True),
    "tests squared": replace(RULES, rate_power=2.0),
}
"""Rules by the name in the table; each but the first changes one part."""
OTHERS = ("random", "majority", "majority-valid", "max-pass", "codet", "srank")

Values = dict[str, dict[str, list[float]]]
"""Method or variant -> metric -> one value for each problem."""


def values(problems: Sequence[RankedProblem]) -> Values:
    """Return pass@1 and pass@10 of all variants for each problem."""
    fewest = min(len(problem.verdicts) for problem in problems)
    picks = [k for k in (PICKS[0], PICKS[-1]) if k <= fewest]
    table: Values = {}
    for name, rules in VARIANTS.items():
        rankings = [combined_by(problem.evidence, rules) for problem in problems]
        table[name] = _rates(rankings, problems, picks)
    for name in OTHERS:
        table[name] = _rates([RANKERS[name](problem.evidence) for problem in problems], problems, picks)
    return table


def _rates(rankings: Sequence[Any], problems: Sequence[RankedProblem], picks: Sequence[int]) -> dict[str, list[float]]:
    pairs = list(zip(rankings, problems, strict=True))
    return {f"pass@{k}": [ranking.pass_at_k(problem.passed, k) for ranking, problem in pairs] for k in picks}


def table(parts: Sequence[Values]) -> dict[str, Any]:
    """Return estimates over the problems of all parts, and differences to `srank` and `combined`."""
    joined = {
        name: {metric: [value for part in parts for value in part[name][metric]] for metric in parts[0][name]}
        for name in parts[0]
    }
    return {
        name: {
            metric: estimate(found)
            | {
                f"over {other}": shown(difference(found, joined[other][metric]))
                for other in ("srank", "combined")
                if other != name
            }
            for metric, found in by_metric.items()
        }
        for name, by_metric in joined.items()
    }
