"""Compare two scores on the same problems, paired.

The value of a problem is the share of its samples that pass. A difference is the mean over the problems that both
scores hold, with the paired bootstrap interval over problems. An interval that holds 0 shows no difference, and neither
do fewer than `LEAST_DIFFERENT` problems on which the two differ: a bootstrap of few values is too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evalkit.errors import EvalError
from evalkit.reports.score_file import ScoreFile, Verdicts, read_score
from evalkit.scoring import stats

LEAST_DIFFERENT = 6
"""Fewest problems with a difference that can show one. If neither score were better, all of five would favour the same
score with probability 2 / 2**5 = 0.06, all of six with 0.03 (sign test)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two scores on one benchmark."""

    benchmark: str
    first: str
    second: str
    """The checkpoints or sample files that were scored."""
    num_problems: int
    """Number of problems that both hold."""
    num_different: int
    """Those on which their shares differ."""
    first_share: float
    second_share: float
    """pass@1 on those problems, as fractions."""
    difference: stats.Estimate
    """first - second."""
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    """Task ids that one solves with any sample and the other does not."""
    remarks: tuple[str, ...]
    """Reasons for caution, such as different protocols."""

    @property
    def conclusion(self) -> str:
        """The conclusion that interval and number of problems support, in words."""
        if self.num_different < LEAST_DIFFERENT:
            return "no difference shown"
        if self.difference.low > 0:
            return "the first is better"
        if self.difference.high < 0:
            return "the second is better"
        return "no difference shown"


def compare(paths: list[Path]) -> list[Comparison]:
    """Compare the first result with each other one, on every benchmark that both hold.

    Raises:
        EvalError: There are fewer than two results, or two share no problem.
    """
    if len(paths) < 2:
        raise EvalError("expected at least two results of 'evalkit score'; name another")
    first, *others = (read_score(path) for path in paths)
    comparisons = [
        _compare(first, other, benchmark) for other in others for benchmark in first.scores if benchmark in other.scores
    ]
    if not comparisons:
        raise EvalError(f"{paths[0]} and {paths[1]} hold no common benchmark; score both with the same --tasks")
    return comparisons


def _compare(first: ScoreFile, second: ScoreFile, benchmark: str) -> Comparison:
    for score in (first, second):
        if not {"id_prefix", "sha256"} <= score.data.get(benchmark, {}).keys():
            raise EvalError(f"{score.path}: does not record the data of {benchmark}; score again")
    first_tasks, second_tasks = first.tasks_of(benchmark), second.tasks_of(benchmark)
    shared = [task for task in first_tasks if task in second_tasks]
    if not shared:
        raise EvalError(f"{first.path} and {second.path} share no problem of {benchmark}: nothing to pair")
    first_shares = {task: _share(first_tasks[task]) for task in shared}
    second_shares = {task: _share(second_tasks[task]) for task in shared}
    remarks = _differences(first, second, benchmark)
    if len(shared) < max(len(first_tasks), len(second_tasks)):
        remarks.append(f"only {len(shared)} problems are in both")
    difference = stats.difference(list(first_shares.values()), list(second_shares.values()))
    num_different = sum(first_shares[task] != second_shares[task] for task in shared)
    if num_different < LEAST_DIFFERENT and not difference.low <= 0 <= difference.high:
        count = "1 problem" if num_different == 1 else f"{num_different} problems"
        remarks.append(f"they differ on {count} only: fewer than {LEAST_DIFFERENT} show no difference")
    return Comparison(
        benchmark=benchmark,
        first=first.source,
        second=second.source,
        num_problems=len(shared),
        num_different=num_different,
        first_share=sum(first_shares.values()) / len(shared),
        second_share=sum(second_shares.values()) / len(shared),
        difference=difference,
        only_first=tuple(task for task in shared if first_shares[task] and not second_shares[task]),
        only_second=tuple(task for task in shared if second_shares[task] and not first_shares[task]),
        remarks=tuple(remarks),
    )


def _differences(first: ScoreFile, second: ScoreFile, benchmark: str) -> list[str]:
    """Return remarks about different protocols and data."""
    remarks = []
    protocols = first.protocol_of(benchmark), second.protocol_of(benchmark)
    if protocols[0] != protocols[1]:
        remarks.append(f"their protocols differ: {protocols[0]} and {protocols[1]}")
    digests = first.data[benchmark]["sha256"][:12], second.data[benchmark]["sha256"][:12]
    if digests[0] != digests[1]:
        remarks.append(f"their data differ: {digests[0]} and {digests[1]}")
    return remarks


def _share(verdicts: Verdicts) -> float:
    return sum(bool(verdict["passed"]) for verdict in verdicts) / len(verdicts)
