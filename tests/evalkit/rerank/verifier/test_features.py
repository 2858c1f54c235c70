"""Features against a slow version, and what they must not depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings

from evalkit.rerank.evidence import LIMIT, TaskEvidence
from evalkit.rerank.rankers.clusters import valid_programs
from evalkit.rerank.verifier.features import FEATURES, FEATURES_VERSION, RANKED_BY, feature_matrix
from evalkit.rerank.verifier.kinds import expected_kind, kind_of
from evalkit.rerank.verifier.text_features import TEXT_FEATURES, text_features
from tests.evalkit.rerank.toy_evidence import evidence_of, evidences


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def slow_outcomes(evidence: TaskEvidence, program: int) -> dict[str, float]:
    num_inputs = len(evidence.inputs)
    counts: Counter[str] = Counter()
    for value, code in zip(evidence.is_value_PI[program], evidence.output_PI[program], strict=True):
        counts["values" if value else "limits" if code <= LIMIT else "exceptions"] += 1
    distinct = len(set(evidence.output_PI[program].tolist()))
    return {
        **{name: share(counts[name], num_inputs) for name in ("values", "limits", "exceptions")},
        "none": share(sum(kind == "none" for kind in kinds(evidence, program)), num_inputs),
        "distinct_outputs": share(distinct, num_inputs),
        "constant": float(num_inputs > 1 and distinct == 1),
        "valid": float(valid_programs(evidence)[program]),
    }


def kinds(evidence: TaskEvidence, program: int) -> list[str]:
    if not evidence.texts:
        return [""] * len(evidence.inputs)
    pairs = zip(evidence.texts[program], evidence.is_value_PI[program], strict=True)
    return [kind_of(text) if is_value else "" for text, is_value in pairs]


def slow_agreement(evidence: TaskEvidence, program: int) -> dict[str, float]:
    """Compare a sample of the program with every other sample, one by one."""
    samples = evidence.program_N.tolist()
    own = samples.index(program)
    others = [other for sample, other in enumerate(samples) if sample != own]
    inputs = range(len(evidence.inputs))
    same = [
        share(sum(evidence.output_PI[other][i] == evidence.output_PI[program][i] for other in others), len(others))
        * evidence.is_value_PI[program][i]
        for i in inputs
    ]
    kind = [
        share(sum(kinds(evidence, other)[i] == kinds(evidence, program)[i] for other in others), len(others))
        * evidence.is_value_PI[program][i]
        for i in inputs
    ]
    rows = evidence.output_PI.tolist()
    return {
        "same_text": share(sum(other == program for other in others), len(others)),
        "same_outputs": share(sum(rows[other] == rows[program] for other in others), len(others)) if rows[0] else 0.0,
        "same_output": share(sum(same), len(same)),
        "same_output_least": min(same, default=0.0),
        "same_kind": share(sum(kind), len(kind)),
    }


def slow_tests(evidence: TaskEvidence, program: int) -> dict[str, float]:
    samples, passed = evidence.program_N.tolist(), evidence.passed_PT
    times = [test.times_written for test in evidence.tests]
    trust = [sum(bool(passed[sample][t]) for sample in samples) / len(samples) for t in range(len(times))]
    marks = [bool(mark) for mark in passed[program]]
    expected = [
        (test.times_written, kinds(evidence, program)[test.input] == expected_kind(test.source))
        for test in evidence.tests
        if test.input is not None and expected_kind(test.source)
    ]
    return {
        "passed": share(sum(n for n, mark in zip(times, marks, strict=True) if mark), sum(times)),
        "passed_unweighted": share(sum(marks), len(marks)),
        "passed_trusted": share(
            sum(n * c for n, c, mark in zip(times, trust, marks, strict=True) if mark),
            sum(n * c for n, c in zip(times, trust, strict=True)),
        ),
        "expected_kind": share(sum(n for n, equal in expected if equal), sum(n for n, _ in expected)),
    }


def slow_problem(evidence: TaskEvidence) -> dict[str, float]:
    samples = evidence.program_N.tolist()
    clusters = Counter(tuple(evidence.output_PI[program].tolist()) for program in samples)
    shares = [count / len(samples) for count in clusters.values()]
    return {
        "problem_inputs": math.log1p(len(evidence.inputs)),
        "problem_tests": math.log1p(len(evidence.tests)),
        "problem_passed": sum(slow_tests(evidence, program)["passed"] for program in samples) / len(samples),
        "problem_entropy": -sum(p * math.log(p) for p in shares) / math.log(max(2, len(samples))),
        "problem_programs": len(evidence.programs) / len(samples),
        "problem_valid": sum(bool(valid_programs(evidence)[program]) for program in samples) / len(samples),
    }


def with_texts(evidence: TaskEvidence) -> TaskEvidence:
    """Name the outputs: code 0 is None, code 1 a number, the others raise."""
    names = {0: "None", 1: "3"}
    texts = tuple(tuple(names.get(code, "ValueError") for code in row) for row in evidence.output_PI.tolist())
    return dataclasses.replace(evidence, texts=texts)


@settings(max_examples=150, deadline=None)
@given(evidence=evidences())
@pytest.mark.slow
def test_features_equal_those_of_a_slow_version(evidence: TaskEvidence) -> None:
    evidence = with_texts(evidence)
    matrix = feature_matrix(evidence)
    assert matrix.shape == (len(evidence.programs), len(FEATURES))
    assert np.isfinite(matrix).all()
    for program in range(len(evidence.programs)):
        found = dict(zip(FEATURES, matrix[program], strict=True))
        slow = {
            **slow_outcomes(evidence, program),
            **slow_agreement(evidence, program),
            **slow_tests(evidence, program),
            **slow_problem(evidence),
            **dict(zip(TEXT_FEATURES, text_features(evidence.programs[program]), strict=True)),
        }
        assert {name: found[name] for name in slow} == pytest.approx(slow, abs=1e-9)
        for name, ranker in RANKED_BY.items():
            ranking = ranker(evidence)
            places = [
                place
                for place, group in enumerate(ranking.groups, 1)
                for sample in group
                if evidence.program_N[sample] == program
            ]
            assert found[f"rank_{name}"] == (1 / places[0] if places else 0.0)


def test_every_name_of_a_feature_is_checked_or_derived() -> None:
    derived = {"same_outputs_of_most", "passed_of_most", "size_to_median"}
    logs = {"log_prob_known", "log_prob", "log_prob_to_mean"}
    evidence = with_texts(evidence_of(outputs=[[0, 1], [1, 1]], passed=[[True], [False]], samples=[0, 1, 1]))
    slow = {
        *slow_outcomes(evidence, 0),
        *slow_agreement(evidence, 0),
        *slow_tests(evidence, 0),
        *slow_problem(evidence),
        *TEXT_FEATURES,
        *(f"rank_{name}" for name in RANKED_BY),
    }
    assert slow | derived | logs == set(FEATURES)
    assert len(set(FEATURES)) == len(FEATURES)


@settings(max_examples=50, deadline=None)
@given(evidence=evidences())
def test_visible_examples_and_the_name_of_the_task_do_not_matter(evidence: TaskEvidence) -> None:
    examples = np.zeros((len(evidence.programs), 3), np.bool_)
    examples[0] = True
    other = dataclasses.replace(evidence, example_passed_PE=examples, task_id="other/7")
    assert (feature_matrix(other) == feature_matrix(evidence)).all()


def test_the_order_of_programs_does_not_matter() -> None:
    evidence = evidence_of(
        outputs=[[0, 1], [1, 1], [-1, -2]], passed=[[True, False], [False, False], [True, True]], samples=[0, 1, 2, 2]
    )
    order = [2, 0, 1]
    other = evidence_of(
        outputs=[[-1, -2], [0, 1], [1, 1]], passed=[[True, True], [True, False], [False, False]], samples=[0, 0, 1, 2]
    )
    other = dataclasses.replace(other, programs=tuple(evidence.programs[program] for program in order))
    assert feature_matrix(other) == pytest.approx(feature_matrix(evidence)[order])


def test_log_probabilities_are_means_over_samples_and_absent_ones_are_zero() -> None:
    evidence = evidence_of(outputs=[[0], [1], [1]], passed=[[]] * 3, samples=[0, 0, 1, 2])
    names = ("log_prob_known", "log_prob", "log_prob_to_mean")
    columns = [FEATURES.index(name) for name in names]
    assert (feature_matrix(evidence)[:, columns] == 0).all()
    known = dataclasses.replace(evidence, log_prob_N=np.array([-0.2, -0.4, -0.5, np.nan]))
    expected = np.array([[1, -0.3, 0.1], [1, -0.5, -0.1], [0, 0, 0]])
    assert feature_matrix(known)[:, columns] == pytest.approx(expected)


def test_a_change_of_a_feature_raises_its_version() -> None:
    """A stored verifier relies on these numbers. If they change, raise `FEATURES_VERSION` and update the digest."""
    evidence = evidence_of(
        outputs=[[0, 1, 2], [0, 1, 2], [0, 1, -1], [1, 1, 1], [-2, -2, -2]],
        passed=[[True, True, False], [True, True, False], [True, False, False], [False, False, True], [False] * 3],
        samples=[0, 1, 2, 3, 4, 0, 3],
        times=[3, 1, 2],
    )
    matrix = np.round(feature_matrix(with_texts(evidence)), 6) + 0.0
    digest = hashlib.sha256(matrix.tobytes()).hexdigest()[:16]
    assert (FEATURES_VERSION, digest) == (1, "ac7dc84a0dacfb46")


def test_the_size_of_a_program_is_compared_with_the_median_sample() -> None:
    evidence = evidence_of(outputs=[[0], [1]], passed=[[], []], samples=[0, 1, 1])
    programs = ("def f(x):\n    return x\n", "def f(x):\n    y = x + 1\n    return y\n")
    evidence = dataclasses.replace(evidence, programs=programs)
    column = feature_matrix(evidence)[:, FEATURES.index("size_to_median")]
    assert column[1] == 0
    assert column[0] < 0
