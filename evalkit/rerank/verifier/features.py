"""Features of the programs of one problem: outcomes, agreement, tests passed, scores of rankers, and text.

Features are shares, ranks and counts, so that a verifier carries over to problems and benchmarks that it has not seen.
None of them knows the benchmark's own tests: `TaskEvidence` does not hold them. The visible examples of a prompt are no
features either: those of MBPP are the tests that decide the labels, so a verifier would learn to trust them alone.

Axes as in `rerank/evidence.py`: P distinct programs, I inputs, T tests. F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from evalkit.rerank.evidence import Bool, Float64, Int64, TaskEvidence
from evalkit.rerank.rankers import agreement, functional_overlap
from evalkit.rerank.rankers.clusters import valid_programs
from evalkit.rerank.rankers.combined import VoteRules, combined_by
from evalkit.rerank.ranking import Ranking
from evalkit.rerank.verifier.kinds import expected_kind, kind_of
from evalkit.rerank.verifier.text_features import TEXT_FEATURES, text_features

FEATURES_VERSION = 1
"""Version of the meaning of all features. A change of a feature, also by a change of a ranker, raises it: a verifier
that was trained on other features is refused."""

VOTE_RULES = VoteRules(
    size_power=0.5,
    counts_samples=True,
    times_power=1.0,
    trust_rounds=1,
    rate_power=1.0,
    least_rate=0.0,
    shares_votes=True,
    own_power=0.0,
    only_valid=True,
    examples_first=False,
)
"""Rules of the feature `rank_votes`. They are all named, because a stored verifier depends on them."""

RANKED_BY: dict[str, Callable[[TaskEvidence], Ranking]] = {
    "codet": agreement.codet,
    "b4": agreement.b4,
    "aces": agreement.aces,
    "srank": functional_overlap.srank,
    "votes": partial(combined_by, rules=VOTE_RULES),
}
"""Rankers whose order of the programs is a feature."""

_Columns = Sequence[Float64]


def feature_matrix(evidence: TaskEvidence) -> Float64:
    """Return [P, F] finite features in the order of `FEATURES`."""
    columns = [column for names, group in _GROUPS for _, column in zip(names, group(evidence), strict=True)]
    return np.stack(columns, axis=1).astype(np.float64)


def _outcomes(evidence: TaskEvidence) -> _Columns:
    """What a program does on the inputs: shares of them, and two marks."""
    values, limits = evidence.is_value_PI, evidence.is_limit_PI
    kinds = _kinds(evidence)
    distinct_P = np.array([len(set(row)) for row in evidence.output_PI.tolist()], np.float64)
    num_inputs = len(evidence.inputs)
    return (
        _mean(values),
        _mean(limits),
        _mean(~values & ~limits & ~evidence.is_failure_PI),
        _mean(kinds == "none"),
        distinct_P / max(1, num_inputs),
        (distinct_P == 1).astype(np.float64) * (num_inputs > 1),
        valid_programs(evidence).astype(np.float64),
    )


def _agreement(evidence: TaskEvidence) -> _Columns:
    """Shares of the other samples that agree with a program: in text, in all outputs, in each output."""
    program_P = np.arange(len(evidence.programs))
    rows_P = _codes([row.tobytes() for row in np.ascontiguousarray(evidence.output_PI)])
    same_outputs = _others(evidence, rows_P) if evidence.inputs else np.zeros(len(program_P))
    is_value_IP = evidence.is_value_PI.T
    output_IP, kinds_IP = evidence.output_PI.T, _kinds(evidence).T.tolist()
    outputs = [_others(evidence, row) * is_value for row, is_value in zip(output_IP, is_value_IP, strict=True)]
    kinds = [_others(evidence, _codes(row)) * is_value for row, is_value in zip(kinds_IP, is_value_IP, strict=True)]
    return (
        _others(evidence, program_P),
        same_outputs,
        same_outputs / max(1e-9, same_outputs.max()),
        np.mean(outputs, axis=0) if outputs else np.zeros(len(program_P)),
        np.min(outputs, axis=0) if outputs else np.zeros(len(program_P)),
        np.mean(kinds, axis=0) if kinds else np.zeros(len(program_P)),
    )


def _tests(evidence: TaskEvidence) -> _Columns:
    """Shares of the model-written tests that a program passes, by several weights."""
    times_T = evidence.times_T.astype(np.float64)
    trust_T = evidence.count_P @ evidence.passed_PT / max(1, len(evidence.program_N))
    passed = _share(evidence.passed_PT, times_T)
    return (
        passed,
        _share(evidence.passed_PT, np.ones(len(times_T))),
        passed / max(1e-9, passed.max()),
        _share(evidence.passed_PT, times_T * trust_T),
        _expected_kinds(evidence),
    )


def _expected_kinds(evidence: TaskEvidence) -> Float64:
    """Return [P] the share of tests whose expected value is of the kind that the program returns for their input."""
    kinds = _kinds(evidence)
    right_P, total = np.zeros(len(evidence.programs)), 0
    for test in evidence.tests:
        if test.input is not None and (kind := expected_kind(test.source)):
            right_P += test.times_written * (kinds[:, test.input] == kind)
            total += test.times_written
    return right_P / max(1, total)


def _rankers(evidence: TaskEvidence) -> _Columns:
    """Reciprocal rank of a program's group under each ranker; 0 outside all groups."""
    return [_reciprocal_rank(evidence, ranker(evidence)) for ranker in RANKED_BY.values()]


def _reciprocal_rank(evidence: TaskEvidence, ranking: Ranking) -> Float64:
    rank_P = np.zeros(len(evidence.programs))
    for place, group in enumerate(ranking.groups, 1):
        rank_P[evidence.program_N[list(group)]] = 1.0 / place
    return rank_P


def _texts(evidence: TaskEvidence) -> _Columns:
    """The text of each program; sizes also as the difference to the median of the samples."""
    matrix = np.array([text_features(program) for program in evidence.programs])
    size_P = matrix[:, TEXT_FEATURES.index("size")]
    return [*matrix.T, size_P - float(np.median(size_P[evidence.program_N]))]


def _generation(evidence: TaskEvidence) -> _Columns:
    """Mean log-probability of a program's tokens, and the difference to that of all samples; 0 where unknown."""
    known_P, log_prob_P = log_probs(evidence)
    centre = float(log_prob_P[known_P].mean()) if known_P.any() else 0.0
    return (
        known_P.astype(np.float64),
        np.where(known_P, log_prob_P, 0.0),
        np.where(known_P, log_prob_P - centre, 0.0),
    )


def log_probs(evidence: TaskEvidence) -> tuple[Bool, Float64]:
    """Return [P] whether a program's log-probability is known, and [P] its mean over the samples that name one."""
    num_programs = len(evidence.programs)
    if evidence.log_prob_N is None:
        return np.zeros(num_programs, np.bool_), np.zeros(num_programs)
    known_N = np.isfinite(evidence.log_prob_N)
    count_P = np.bincount(evidence.program_N[known_N], minlength=num_programs)
    sum_P = np.bincount(evidence.program_N[known_N], evidence.log_prob_N[known_N], minlength=num_programs)
    return count_P > 0, sum_P / np.maximum(1, count_P)


def _problem(evidence: TaskEvidence) -> _Columns:
    """The problem as a whole, equal for all its programs: how much evidence there is, and how far it agrees."""
    num_samples = len(evidence.program_N)
    share_P = evidence.count_P / num_samples
    rows = _codes([row.tobytes() for row in np.ascontiguousarray(evidence.output_PI)])
    share_C = np.bincount(rows, share_P)
    values = (
        np.log1p(len(evidence.inputs)),
        np.log1p(len(evidence.tests)),
        float(share_P @ _share(evidence.passed_PT, evidence.times_T.astype(np.float64))),
        float(-(share_C * np.log(share_C)).sum() / np.log(max(2, num_samples))),
        len(evidence.programs) / num_samples,
        float(share_P @ valid_programs(evidence)),
    )
    return [np.full(len(evidence.programs), value) for value in values]


_GROUPS: tuple[tuple[tuple[str, ...], Callable[[TaskEvidence], _Columns]], ...] = (
    (("values", "limits", "exceptions", "none", "distinct_outputs", "constant", "valid"), _outcomes),
    (
        ("same_text", "same_outputs", "same_outputs_of_most", "same_output", "same_output_least", "same_kind"),
        _agreement,
    ),
    (("passed", "passed_unweighted", "passed_of_most", "passed_trusted", "expected_kind"), _tests),
    (tuple(f"rank_{name}" for name in RANKED_BY), _rankers),
    ((*TEXT_FEATURES, "size_to_median"), _texts),
    (("log_prob_known", "log_prob", "log_prob_to_mean"), _generation),
    (
        ("problem_inputs", "problem_tests", "problem_passed", "problem_entropy", "problem_programs", "problem_valid"),
        _problem,
    ),
)
"""Names of features, and the function that computes their columns."""

FEATURES = tuple(name for names, _ in _GROUPS for name in names)
"""Names of all features, in the order of the matrix."""


def _kinds(evidence: TaskEvidence) -> npt.NDArray[np.str_]:
    """Return [P, I] the kind of each value; "" for other outcomes, and where evidence has no texts."""
    kinds = np.zeros(evidence.output_PI.shape, np.dtype("U6"))
    if evidence.texts:
        for program, row in enumerate(evidence.texts):
            kinds[program] = [kind_of(text) for text in row]
        kinds[~evidence.is_value_PI] = ""
    return kinds


def _others(evidence: TaskEvidence, code_P: Sequence[int] | Int64) -> Float64:
    """Return [P] the share of the other samples whose programs have an equal code; 0 for a single sample."""
    _, index = np.unique(np.asarray(code_P), return_inverse=True)
    same_P = np.bincount(index.reshape(-1), evidence.count_P)[index.reshape(-1)]
    share: Float64 = (same_P - 1) / max(1, len(evidence.program_N) - 1)
    return share


def _codes(items: Sequence[object]) -> list[int]:
    """Return a number for each item; equal items have equal numbers, from 0 up."""
    codes: dict[object, int] = {}
    return [codes.setdefault(item, len(codes)) for item in items]


def _mean(marks_PX: Bool) -> Float64:
    """Return [P] the share of marks; 0 without columns."""
    mean: Float64 = marks_PX.sum(axis=1) / max(1, marks_PX.shape[1])
    return mean


def _share(passed_PT: Bool, weight_T: Float64) -> Float64:
    """Return [P] the weighted share of tests passed; 0 without weight."""
    share: Float64 = passed_PT @ weight_T / max(1e-9, float(weight_T.sum()))
    return share
