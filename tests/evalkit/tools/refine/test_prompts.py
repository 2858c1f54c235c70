"""Tests of the prompts of further attempts."""

from __future__ import annotations

from dataclasses import replace

from evalkit.generation.base import Prompt, Turn
from evalkit.request import REFINE_FORMS
from evalkit.samples.base import Sample
from evalkit.tasks import protocols
from evalkit.tools.refine.attempts import Attempt
from evalkit.tools.refine.prompts import LEAST_TEMPERATURES, next_prompt
from evalkit.tools.refine.visible import VisibleOutcome

FAILURE = "This test fails:\nassert f(1) == 2\nf(1) returns 1."


def attempt(**fields: str) -> Attempt:
    return Attempt(
        sample=Sample(task_id="T/0", **fields),
        program="",
        outcome=VisibleOutcome(passed=0, kind="wrong", failure=FAILURE),
    )


def test_a_chat_model_gets_the_whole_conversation():
    protocol = protocols.find("humaneval-evalplus-chat-v1", task="humaneval")
    first = Prompt(task_id="T/0", index=0, text="Here it is:\n```python\n", user="Write f.", seed=1)
    attempts = [attempt(solution="A\n", raw="A\nprint(1)\n"), attempt(solution="B\n")]
    prompt = next_prompt(first, attempts, protocol, form="conversation")
    message = f"The program is not correct. {FAILURE}\nPlease correct the program."
    assert prompt.earlier == (
        Turn("user", "Write f."),
        Turn("assistant", "Here it is:\n```python\nA\nprint(1)\n```"),
        Turn("user", message),
        Turn("assistant", "Here it is:\n```python\nB\n```"),
    )
    assert (prompt.user, prompt.text) == (message, first.text)
    assert prompt.temperature == LEAST_TEMPERATURES["conversation"]
    warmer = next_prompt(first, attempts, replace(protocol, temperature=0.8), form="conversation")
    assert warmer.temperature == 0.8


def test_an_answer_with_closed_blocks_stays_as_it_is():
    protocol = protocols.find("mbpp-chat-v1", task="mbpp")
    first = Prompt(task_id="T/0", index=0, text="", user="Write f.", seed=1)
    prompt = next_prompt(
        first, [attempt(solution="A\n", raw="Sure:\n```python\nA\n```\nDone.")], protocol, form="conversation"
    )
    assert prompt.earlier[1].content == "Sure:\n```python\nA\n```\nDone."


def test_a_base_model_gets_a_comment_and_the_beginning_again():
    comment = (
        "# The function above is not correct. This test fails:\n# assert f(1) == 2\n# f(1) returns 1.\n"
        "# The corrected function:\n"
    )
    first = Prompt(task_id="T/0", index=0, text="def f(x):\n", seed=1)
    protocol = protocols.find("humaneval-openai-v1", task="humaneval")
    prompt = next_prompt(first, [attempt(completion="    return x\n\n")], protocol, form="conversation")
    assert prompt.text == f"def f(x):\n    return x\n\n\n{comment}def f(x):\n"
    few_shot = Prompt(task_id="T/0", index=0, text="Task: ...\n[BEGIN]\n", seed=1)
    protocol = protocols.find("mbpp-3shot-v1", task="mbpp")
    prompt = next_prompt(few_shot, [attempt(solution="def f(x):\n    return x\n")], protocol, form="conversation")
    assert prompt.text == f"Task: ...\n[BEGIN]\ndef f(x):\n    return x\n[DONE]\n\n{comment}[BEGIN]\n"


def test_the_seed_depends_on_all_that_is_shown():
    protocol = protocols.find("humaneval-openai-v1", task="humaneval")
    first = Prompt(task_id="T/0", index=0, text="def f(x):\n", seed=1)
    seeds = [
        next_prompt(prompt, [attempt(completion=text)], protocol, form="conversation").seed
        for prompt, text in ((first, "a"), (first, "b"), (Prompt(task_id="", index=0, text="", seed=2), "a"))
    ]
    assert len(set(seeds)) == 3
    assert seeds[0] == next_prompt(first, [attempt(completion="a")], protocol, form="conversation").seed


def test_the_other_form_shows_the_task_and_the_failures_but_no_program():
    other = replace(attempt(solution="B\n"), outcome=VisibleOutcome(passed=0, kind="wrong", failure="f(2) fails."))
    attempts = [attempt(solution="A\n"), other, other]
    protocol = protocols.find("humaneval-evalplus-chat-v1", task="humaneval")
    chat = Prompt(task_id="T/0", index=0, text="Here it is:\n```python\n", user="Write f.\n", seed=1)
    prompt = next_prompt(chat, attempts, protocol, form="failure")
    assert prompt.user == f"Write f.\n\nAn earlier program was not correct. {FAILURE}\nf(2) fails.\n"
    assert (prompt.earlier, prompt.text, prompt.temperature) == ((), chat.text, LEAST_TEMPERATURES["failure"])
    note = (
        "# An earlier version of this function was not correct. This test fails:\n# assert f(1) == 2\n"
        "# f(1) returns 1.\n"
    )
    base = Prompt(task_id="T/0", index=0, text="def f(x):\n", seed=1)
    protocol = protocols.find("humaneval-openai-v1", task="humaneval")
    assert next_prompt(base, attempts[:1], protocol, form="failure").text == f"{note}def f(x):\n"
    few_shot = Prompt(task_id="T/0", index=0, text="Task: ...\n[BEGIN]\n", seed=1)
    protocol = protocols.find("mbpp-3shot-v1", task="mbpp")
    assert next_prompt(few_shot, attempts[:1], protocol, form="failure").text == f"Task: ...\n{note}[BEGIN]\n"


def test_a_sample_is_the_first_prompt_with_a_seed_of_its_own():
    protocol = protocols.find("humaneval-evalplus-chat-v1", task="humaneval")
    first = Prompt(task_id="T/0", index=0, text="Here it is:\n```python\n", user="Write f.\n", seed=1)
    attempts = [attempt(solution="A\n")] * 2
    prompts = [next_prompt(first, attempts[:number], protocol, form="sample") for number in (1, 2)]
    assert all(replace(prompt, seed=1, temperature=None) == replace(first, temperature=None) for prompt in prompts)
    assert {prompt.temperature for prompt in prompts} == {LEAST_TEMPERATURES["sample"]}
    assert len({prompt.seed for prompt in (first, *prompts)}) == 3


def test_each_form_has_a_temperature():
    assert set(LEAST_TEMPERATURES) == set(REFINE_FORMS)
