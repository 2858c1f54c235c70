"""Which tasks a verifier refuses, and what it notes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evalkit.errors import EvalError
from evalkit.rerank.verifier.verifier import SeenTasks, Verifier
from evalkit.tasks.base import Problem
from tests.evalkit.rerank.verifier.test_files import logistic


def problem(number: int, **fields: str) -> Problem:
    texts = {"prompt": "", "description": f"Write function {number}.", **fields}
    return Problem(task_id=f"Mbpp/{number}", entry_points=("f",), prelude="", test="", reference="", **texts)


@pytest.fixture
def verifier() -> Verifier:
    return Verifier(
        model=logistic(),
        inputs=("tests",),
        trained_on=SeenTasks.of(["mbpp:train"], [problem(number) for number in range(601, 611)]),
        tuned_on=SeenTasks.of(["mbpp:validation"], [problem(511)]),
    )


def test_tasks_of_the_training_are_refused_by_name(verifier: Verifier) -> None:
    with pytest.raises(EvalError, match=r"v: the verifier was trained on Mbpp/601, .*, Mbpp/605 and 5 others, "):
        verifier.refuse_seen([problem(number) for number in (11, *range(601, 611))], "v")
    with pytest.raises(EvalError, match=r"v: the verifier was tuned on Mbpp/511, which is 1 of the 2 tasks"):
        verifier.refuse_seen([problem(12), problem(511)], "v")


def test_a_task_with_other_words_but_the_same_id_is_refused(verifier: Verifier) -> None:
    with pytest.raises(EvalError, match="Mbpp/601"):
        verifier.refuse_seen([problem(601, description="As edited by hand.")], "v")


def test_a_task_under_another_id_is_refused(verifier: Verifier) -> None:
    with pytest.raises(EvalError, match="trained on Other/1, which"):
        verifier.refuse_seen([replace(problem(601), task_id="Other/1")], "v")


def test_other_tasks_are_allowed(verifier: Verifier) -> None:
    verifier.refuse_seen([problem(number) for number in range(11, 511)], "v")


def test_other_sources_of_inputs_are_noted(verifier: Verifier) -> None:
    assert verifier.input_note(("tests",)) == ""
    assert "trained with --inputs tests, and these are examples,mutation" in verifier.input_note(
        ("examples", "mutation")
    )
