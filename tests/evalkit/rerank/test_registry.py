"""Properties of every ranker of the table."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings

from evalkit.rerank.evidence import NONE_CODE, TaskEvidence
from evalkit.rerank.registry import RANKERS
from tests.evalkit.rerank.toy_evidence import evidence_of, evidences


@pytest.mark.parametrize("name", RANKERS)
@settings(max_examples=60, deadline=None)
@given(evidence=evidences())
def test_groups_are_disjoint_sorted_and_keep_a_programs_samples_together(name: str, evidence: TaskEvidence) -> None:
    ranking = RANKERS[name](evidence)
    samples = [sample for group in ranking.groups for sample in group]
    assert len(samples) == len(set(samples))
    assert list(ranking.scores) == sorted(set(ranking.scores), reverse=True)
    for group in ranking.groups:
        programs = set(evidence.program_N[list(group)].tolist())
        assert set(group) == set(np.flatnonzero(np.isin(evidence.program_N, list(programs))).tolist())


@pytest.mark.parametrize("name", RANKERS)
@settings(max_examples=30, deadline=None)
@given(evidence=evidences())
def test_the_names_of_outputs_do_not_matter(name: str, evidence: TaskEvidence) -> None:
    renamed_PI = np.where(evidence.output_PI > NONE_CODE, 7 - evidence.output_PI, np.where(evidence.is_value_PI, 0, -9))
    renamed = dataclasses.replace(evidence, output_PI=renamed_PI)
    if len(np.unique(evidence.output_PI[evidence.output_PI < 0])) < 2:
        assert RANKERS[name](renamed) == RANKERS[name](evidence)


@pytest.mark.parametrize("name", RANKERS)
def test_one_program_without_inputs_or_tests_is_ranked(name: str) -> None:
    ranking = RANKERS[name](evidence_of(outputs=[[]], passed=[[]], samples=[0, 0]))
    assert ranking.groups in ((), ((0, 1),))
    assert ranking.pass_at_k([True, False], 1) == 0.5
