"""The table of rankers.

To add a ranker: write a function from `TaskEvidence` to `Ranking` in `evalkit/rerank/rankers/`, and add it to
`RANKERS`. It sees the evidence only, never verdicts or the benchmark's own tests.
"""

from __future__ import annotations

from collections.abc import Callable

from evalkit.rerank.evidence import TaskEvidence
from evalkit.rerank.rankers import agreement, counting, functional_overlap
from evalkit.rerank.ranking import Ranking

Ranker = Callable[[TaskEvidence], Ranking]

RANKERS: dict[str, Ranker] = {
    "random": counting.random,
    "majority": counting.majority,
    "majority-valid": counting.majority_valid,
    "max-pass": counting.max_pass,
    "codet": agreement.codet,
    "srank": functional_overlap.srank,
    "srank-unweighted": functional_overlap.srank_unweighted,
    "srank-all": functional_overlap.srank_all,
    "b4": agreement.b4,
    "aces": agreement.aces,
    "alphacode": counting.alphacode,
    "combined": functional_overlap.combined,
}
"""Rankers by the name that `--methods` takes."""
