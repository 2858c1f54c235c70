"""Problems with their rankings and verdicts, and the scores of all methods over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evalkit.rerank.evidence import TaskEvidence
from evalkit.rerank.ranking import Ranking
from evalkit.rerank.registry import BASELINE, ORACLE
from evalkit.sandbox.verdict import Verdict
from evalkit.scoring.method_scores import MethodScore, score_methods
from evalkit.tasks.base import Problem

USUAL_PICKS = (1, 2, 5, 10)
"""Values of k for which pass@k is reported, up to the smallest number of samples of a problem."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedProblem:
    """One problem with every method's ranking and the verdicts of its samples."""

    problem: Problem
    evidence: TaskEvidence
    rankings: dict[str, Ranking]
    """Ranking of each method."""
    verdicts: tuple[Verdict, ...]
    """[N] Verdict of each sample."""

    @property
    def passed(self) -> tuple[bool, ...]:
        """[N] Whether each sample passes the benchmark's tests."""
        return tuple(verdict.passed for verdict in self.verdicts)

    @property
    def num_failed(self) -> int:
        """Samples that could not be executed on this machine; if there are any, the problem is not scored."""
        return sum(verdict.outcome == "infra_error" for verdict in self.verdicts)

    def first(self, method: str) -> int:
        """Return the sample that a method puts first: the earliest one of its first group."""
        return self.rankings[method].order(len(self.verdicts))[0]

    def rate(self, method: str, k: int) -> float:
        """Return the expected pass@k of a method; for `ORACLE`, whether any sample passes."""
        if method == ORACLE:
            return float(any(self.passed))
        return self.rankings[method].pass_at_k(self.passed, k)


def score_problems(
    methods: Sequence[str], problems: Sequence[RankedProblem], *, note: Callable[[str], None]
) -> dict[str, MethodScore]:
    """Return the scores of all methods, and of `ORACLE`, over the problems whose samples could all be executed.

    Args:
        methods: Names of methods, each with a ranking of every problem.
        problems: The problems.
        note: Receives a line where samples are too few for a usual pass@k.
    """
    scored = [problem for problem in problems if not problem.num_failed]
    fewest = min((len(problem.verdicts) for problem in scored), default=0)
    picks = [k for k in USUAL_PICKS if k <= fewest]
    if picks and len(picks) < len(USUAL_PICKS):
        note(f"pass@k is reported up to k = {picks[-1]}: a problem has only {fewest} samples")
    rates = {
        method: {f"pass@{k}": [problem.rate(method, k) for problem in scored] for k in picks}
        for method in (*methods, ORACLE)
    }
    return score_methods(rates, baseline=BASELINE)
