"""Tests of tasks and seeds."""

from __future__ import annotations

import hashlib

import pytest

from teacher_dump.writing.task import group_prompts, response_seed
from tests.teacher_dump.writing.helpers import prompt

PROMPTS = [prompt(f"question {n}", str(n)) for n in range(7)]


@pytest.mark.parametrize(("samples", "answers", "sizes"), [(1, 3, [3, 3, 1]), (3, 6, [2, 2, 2, 1]), (8, 6, [1] * 7)])
def test_tasks_hold_consecutive_prompts_with_all_samples(samples: int, answers: int, sizes: list[int]) -> None:
    tasks = list(group_prompts(PROMPTS, samples=samples, answers_per_task=answers, fingerprint="f"))
    assert [len(task.prompts) for task in tasks] == sizes
    assert [p for task in tasks for p in task.prompts] == PROMPTS
    assert [task.num_answers for task in tasks] == [size * samples for size in sizes]
    assert len({task.name for task in tasks}) == len(tasks)


def test_the_name_of_a_task_depends_on_its_inputs() -> None:
    def names(prompts: list[object], fingerprint: str) -> list[str]:
        return [
            task.name
            for task in group_prompts(prompts, samples=1, answers_per_task=3, fingerprint=fingerprint)  # type: ignore[arg-type]
        ]

    base = names(list(PROMPTS), "f")
    assert base == names(list(PROMPTS), "f")
    assert not set(base) & set(names(list(PROMPTS), "g"))
    changed = names([*PROMPTS[:3], prompt("another", "3"), *PROMPTS[4:]], "f")
    assert [a == b for a, b in zip(base, changed, strict=True)] == [True, False, True]


def test_a_seed_is_a_digest_of_seed_prompt_and_index() -> None:
    document = PROMPTS[0].document
    expected = int(hashlib.sha256(f"3 {document} 2".encode()).hexdigest()[:8], 16)
    assert response_seed(3, document, 2) == expected
    seeds = {response_seed(s, p.document, i) for s in range(3) for p in PROMPTS for i in range(5)}
    assert len(seeds) == 3 * len(PROMPTS) * 5


def test_all_responses_to_a_conversation_are_of_one_document() -> None:
    assert prompt("a", "x").document == prompt("a", "y").document != prompt("b", "x").document
