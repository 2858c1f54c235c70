"""Rankings: order of groups, picks and pass@k by the rule of CodeT's authors."""

from __future__ import annotations

import itertools

import pytest

from evalkit.rerank.ranking import Ranking
from evalkit.scoring.stats import pass_at_k


def test_equal_scores_are_one_group_and_empty_groups_are_left_out() -> None:
    ranking = Ranking.of([(1.0, [3]), (2.0, [1, 0]), (1.0, [2]), (5.0, [])])
    assert ranking.groups == ((0, 1), (2, 3))
    assert ranking.scores == (2.0, 1.0)


@pytest.mark.parametrize(("k", "picks"), [(1, (1,)), (2, (1, 1)), (3, (2, 1)), (5, (3, 2))])
def test_picks_go_round_robin(k: int, picks: tuple[int, ...]) -> None:
    assert Ranking.of([(2.0, [0, 1]), (1.0, [2])]).picks(k) == picks


def test_pass_at_k_is_the_mean_over_all_independent_picks() -> None:
    ranking = Ranking.of([(2.0, [0, 1, 2]), (1.0, [3, 4])])
    passed = [True, False, False, True, False, True]
    for k in (1, 2, 3, 4):
        groups = [group for group, count in zip(ranking.groups, ranking.picks(k), strict=False) for _ in range(count)]
        outcomes = [any(passed[sample] for sample in choice) for choice in itertools.product(*groups)]
        assert ranking.pass_at_k(passed, k) == pytest.approx(sum(outcomes) / len(outcomes))


def test_without_groups_pass_at_k_is_that_of_all_samples() -> None:
    passed = [True, False, False, True, False]
    assert Ranking.of([]).pass_at_k(passed, 2) == pass_at_k(5, 2, 2)


def test_the_order_takes_one_of_each_group_in_turn_and_the_others_last() -> None:
    assert Ranking.of([(2.0, [4, 1]), (1.0, [0])]).order(6) == (1, 0, 4, 2, 3, 5)
