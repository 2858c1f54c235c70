"""First choices, rates and scores of problems with rankings and verdicts."""

from __future__ import annotations

import pytest

from evalkit.rerank.registry import RANKERS
from evalkit.sandbox.verdict import Verdict
from evalkit.scoring.ranked_problems import RankedProblem, score_problems
from evalkit.tasks.base import Problem
from tests.evalkit.rerank.toy_evidence import evidence_of


def ranked(outcomes: list[str]) -> RankedProblem:
    evidence = evidence_of(outputs=[[0], [1]], passed=[[True], [False]], samples=[0, 1, 1])
    problem = Problem(task_id="toy/0", prompt="", entry_points=("f",), prelude="", test="", reference="")
    rankings = {name: RANKERS[name](evidence) for name in ("random", "majority")}
    verdicts = tuple(Verdict(outcome=outcome) for outcome in outcomes)
    return RankedProblem(problem=problem, evidence=evidence, rankings=rankings, verdicts=verdicts)


def test_the_first_choice_and_the_rates_follow_the_ranking() -> None:
    problem = ranked(["pass", "wrong", "pass"])
    assert (problem.first("majority"), problem.first("random")) == (1, 0)
    assert problem.rate("majority", 1) == 0.5
    assert problem.rate("majority", 2) == 1.0
    assert problem.rate("random", 1) == pytest.approx(2 / 3)
    assert problem.rate("oracle", 1) == 1.0


def test_a_problem_whose_samples_could_not_be_executed_is_not_scored() -> None:
    notes: list[str] = []
    problems = [ranked(["pass", "wrong", "wrong"]), ranked(["pass", "infra_error", "wrong"])]
    scores = score_problems(["random", "majority"], problems, note=notes.append)
    assert scores["random"].estimates["pass@1"].mean == pytest.approx(1 / 3)
    assert list(scores["majority"].estimates) == ["pass@1", "pass@2"]
    assert notes == ["pass@k is reported up to k = 2: a problem has only 3 samples"]
    assert score_problems(["random"], problems[1:], note=notes.append)["random"].estimates == {}
