"""How good a verifier is on tasks that it was not fitted on: AUC, Brier score, reliability, and its choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evalkit.rerank.evidence import Bool, Float64, TaskEvidence
from evalkit.rerank.rankers import agreement, combined, counting, functional_overlap
from evalkit.rerank.rankers.agreement import auc
from evalkit.rerank.ranking import Ranking
from evalkit.rerank.verifier.fit import LabelledTask
from evalkit.rerank.verifier.ranker import lever
from evalkit.scoring.method_scores import MethodScore, score_methods

NUM_BINS = 10
"""Bins of the reliability picture, of equal width."""

_COMPARED: dict[str, Callable[[TaskEvidence], Ranking]] = {
    "random": counting.random,
    "majority": counting.majority,
    "codet": agreement.codet,
    "srank": functional_overlap.srank,
    "combined": combined.combined,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReliabilityBin:
    """Samples whose probabilities are alike."""

    low: float
    high: float
    samples: int
    predicted: float
    """Mean probability; 0 without samples."""
    right: float
    """Share that is right; 0 without samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifierQuality:
    """Measures on held-out tasks; the unit is a sample unless a field says otherwise."""

    tasks: int
    samples: int
    right_share: float
    auc: float | None
    """Probability that a right sample has a larger probability than a wrong one; None without either."""
    auc_within_tasks: float | None
    """Mean over the tasks that have both right and wrong samples; None without such a task."""
    brier: float
    """Mean squared error of the probability."""
    brier_of_share: float
    """That of the constant `right_share`."""
    reliability: tuple[ReliabilityBin, ...]
    tasks_with_right: int
    """Tasks with a right sample: only there a choice matters."""
    wrong_choices: int
    """Those of them where the first choice is wrong."""
    scores: dict[str, MethodScore]
    """pass@1 of this verifier and of other methods on the same tasks, with differences to `random`."""

    def to_dict(self) -> dict[str, Any]:
        """Return all measures, as the report records them."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name not in ("scores", "reliability")}
        return {
            **fields,
            "wrong_choice_share": self.wrong_choices / self.tasks_with_right if self.tasks_with_right else None,
            "reliability": [asdict(item) for item in self.reliability],
            "scores": {method: score.to_dict() for method, score in self.scores.items()},
            "differences": {method: score.differences_dict() for method, score in self.scores.items()},
        }


def measure(predicted: Sequence[tuple[LabelledTask, Float64]], *, use_log_probs: bool) -> VerifierQuality:
    """Measure probabilities, and the choices that `lever` makes with them.

    Args:
        predicted: Each held-out task, and [P] the probability that each program is right. At least one task.
        use_log_probs: See `lever`.
    """
    chance_N = np.concatenate([right_P[task.evidence.program_N] for task, right_P in predicted])
    right_N = np.concatenate([task.right_N for task, _ in predicted])
    within = [_auc(right_P[task.evidence.program_N], task.right_N) for task, right_P in predicted]
    known = [value for value in within if value is not None]
    rankings = [lever(task.evidence, right_P, use_log_probs=use_log_probs) for task, right_P in predicted]
    first = [
        bool(task.right_N[ranking.order(len(task.right_N))[0]])
        for (task, _), ranking in zip(predicted, rankings, strict=True)
        if task.right_N.any()
    ]
    share = float(right_N.mean())
    return VerifierQuality(
        tasks=len(predicted),
        samples=len(right_N),
        right_share=share,
        auc=_auc(chance_N, right_N),
        auc_within_tasks=float(np.mean(known)) if known else None,
        brier=float(np.mean((chance_N - right_N) ** 2)),
        brier_of_share=share * (1 - share),
        reliability=reliability(chance_N, right_N),
        tasks_with_right=len(first),
        wrong_choices=first.count(False),
        scores=_scores([task for task, _ in predicted], rankings),
    )


def _auc(chance_N: Float64, right_N: Bool) -> float | None:
    return auc(chance_N, right_N) if right_N.any() and not right_N.all() else None


def reliability(chance_N: Float64, right_N: Bool) -> tuple[ReliabilityBin, ...]:
    """Return `NUM_BINS` bins of equal width over [0, 1]."""
    place_N = np.minimum((chance_N * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    bins = []
    for place in range(NUM_BINS):
        inside = place_N == place
        count = int(inside.sum())
        bins.append(
            ReliabilityBin(
                low=place / NUM_BINS,
                high=(place + 1) / NUM_BINS,
                samples=count,
                predicted=float(chance_N[inside].mean()) if count else 0.0,
                right=float(right_N[inside].mean()) if count else 0.0,
            )
        )
    return tuple(bins)


def _scores(tasks: Sequence[LabelledTask], rankings: Sequence[Ranking]) -> dict[str, MethodScore]:
    """Return pass@1 of the verifier beside other methods, and of any sample."""
    rates = {
        name: {"pass@1": [ranker(task.evidence).pass_at_k(task.right_N.tolist(), 1) for task in tasks]}
        for name, ranker in _COMPARED.items()
    }
    pairs = zip(tasks, rankings, strict=True)
    rates["verifier"] = {"pass@1": [ranking.pass_at_k(task.right_N.tolist(), 1) for task, ranking in pairs]}
    rates["oracle"] = {"pass@1": [float(task.right_N.any()) for task in tasks]}
    return score_methods(rates, baseline="random")
