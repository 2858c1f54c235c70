"""Clusters of equal rows, and the validity rule."""

from __future__ import annotations

import numpy as np

from evalkit.rerank.evidence import NONE_CODE
from evalkit.rerank.rankers.clusters import cluster, valid_programs
from tests.evalkit.rerank.toy_evidence import evidence_of


def test_programs_with_equal_rows_are_in_one_cluster_and_unmarked_ones_in_none() -> None:
    clusters = cluster(np.array([[1, 2], [1, 3], [1, 2], [1, 3]]), np.array([True, True, True, False]))
    assert sorted(map(tuple, clusters.member_CP.tolist())) == [
        (False, True, False, False),
        (True, False, True, False),
    ]
    assert all(clusters.member_CP[i, first] for i, first in enumerate(clusters.first_C))


def test_without_marked_programs_there_is_no_cluster() -> None:
    assert len(cluster(np.array([[1], [2]]), np.zeros(2, np.bool_))) == 0


def test_a_program_is_valid_if_it_answers_and_its_answers_differ() -> None:
    outputs = [[1, 2], [1, 1], [-1, -1], [-1, 1], [-1, -2], [NONE_CODE, -1], [NONE_CODE, 1]]
    evidence = evidence_of(outputs=outputs, passed=[[]] * 7, samples=range(7))
    assert valid_programs(evidence).tolist() == [True, False, False, True, False, False, True]


def test_with_one_input_a_constant_answer_is_valid() -> None:
    assert valid_programs(evidence_of(outputs=[[1], [-1]], passed=[[]] * 2, samples=range(2))).tolist() == [True, False]
