"""Prompt forms: functions from a problem to the text that a model continues.

To add a form: write a function and add it to `PROMPT_FORMS`; protocols name it in their `prompt`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from evalkit.tasks import codet_prompts
from evalkit.tasks.base import Benchmark, Problem
from evalkit.tasks.presets import PromptProtocol
from evalkit.tasks.protocols import task_number


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptText:
    """Text of one prompt."""

    text: str
    """Text that the model continues; for chat models the beginning of its answer."""
    user: str | None = None
    """For chat models: the user's message. None for base models."""


_DOCUMENTATION = "Documentation of functions and classes that may help:"

PromptForm = Callable[[Problem, Benchmark], PromptText]
"""Function from a problem and its benchmark, which may supply examples, to the prompt."""


def build_prompt(protocol: PromptProtocol, problem: Problem, benchmark: Benchmark) -> PromptText:
    """Return the prompt of one problem in the form that the protocol names."""
    return PROMPT_FORMS[protocol.prompt](problem, benchmark)


def with_documentation(prompt: PromptText, documentation: str) -> PromptText:
    """Return the prompt with documentation before its question: as comments where the model continues code.

    Args:
        prompt: A prompt of any form.
        documentation: Plain text; "" leaves the prompt as it is.
    """
    if not documentation:
        return prompt
    text = f"{_DOCUMENTATION}\n\n{documentation}"
    if prompt.user is not None:
        return replace(prompt, user=f"{text}\n\n{prompt.user}")
    comments = "\n".join(f"# {line}".rstrip() for line in text.splitlines())
    return replace(prompt, text=f"{comments}\n\n{prompt.text}")


def shown_text(protocol: PromptProtocol, problem: Problem, benchmark: Benchmark) -> str:
    """Return all that a model is shown of a problem: the message to a chat model, and the text that it continues."""
    prompt = build_prompt(protocol, problem, benchmark)
    return (prompt.user or "") + prompt.text


def _verbatim(problem: Problem, benchmark: Benchmark) -> PromptText:
    return PromptText(text=problem.prompt)


def _stripped(problem: Problem, benchmark: Benchmark) -> PromptText:
    return PromptText(text=problem.prompt.strip())


def _stripped_newline(problem: Problem, benchmark: Benchmark) -> PromptText:
    return PromptText(text=problem.prompt.strip() + "\n")


_CHAT_QUESTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
)
_CHAT_ANSWER = (
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:\n"
    "```python\n"
)


def _chat(problem: Problem, benchmark: Benchmark) -> PromptText:
    return PromptText(user=f"{_CHAT_QUESTION}\n```python\n{problem.prompt.strip()}\n```", text=_CHAT_ANSWER)


def _mbpp_3shot(problem: Problem, benchmark: Benchmark) -> PromptText:
    shots = [shot for number in (2, 3, 4) for shot in benchmark.problems if task_number(shot) == number]
    examples = [f"{_mbpp_question(shot)}{shot.reference.strip()}\n[DONE]" for shot in shots]
    return PromptText(text="\n\n".join([*examples, _mbpp_question(problem)]))


def _mbpp_question(problem: Problem) -> str:
    tests = "\n".join(problem.shown_tests[:3])
    return (
        f"You are an expert Python programmer, and here is your task: {problem.description} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def _mbpp_chat(problem: Problem, benchmark: Benchmark) -> PromptText:
    tests = "\n".join(problem.shown_tests[:3])
    question = (
        f"You are an expert Python programmer, and here is your task: {problem.description} "
        f"Your code should pass these tests:\n\n{tests}"
    )
    return PromptText(user=question, text="")


def _without_examples(problem: Problem, benchmark: Benchmark) -> PromptText:
    return PromptText(text=codet_prompts.without_examples(problem))


def _solution_chat(stub: PromptForm) -> PromptForm:
    """Return the form that asks a chat model for the function that `stub` begins."""

    def form(problem: Problem, benchmark: Benchmark) -> PromptText:
        beginning = stub(problem, benchmark).text.strip()
        return PromptText(user=f"{_CHAT_QUESTION}\n```python\n{beginning}\n```", text=_CHAT_ANSWER)

    return form


def _signature(problem: Problem, benchmark: Benchmark) -> PromptText:
    return PromptText(text=codet_prompts.signature_with_description(problem))


def _begun(stub: PromptForm, begin: Callable[[str, str], str]) -> PromptForm:
    """Return the form that lets a base model continue what `begin` makes of a stub and the function's name."""

    def form(problem: Problem, benchmark: Benchmark) -> PromptText:
        name = codet_prompts.tested_name(problem)
        return PromptText(text=begin(stub(problem, benchmark).text, name))

    return form


def _asked(stub: PromptForm, ask: Callable[[str, str], str], answer: str) -> PromptForm:
    """Return the form that sends a chat model what `ask` makes of a stub and the function's name.

    Args:
        stub: Beginning of the function.
        ask: Function from stub and name to the message.
        answer: Beginning of the model's answer.
    """

    def form(problem: Problem, benchmark: Benchmark) -> PromptText:
        name = codet_prompts.tested_name(problem)
        return PromptText(user=ask(stub(problem, benchmark).text, name), text=answer)

    return form


def _tests(stub: PromptForm) -> PromptForm:
    return _begun(stub, codet_prompts.begin_tests)


def _tests_chat(stub: PromptForm) -> PromptForm:
    return _asked(stub, codet_prompts.ask_for_tests, codet_prompts.BEGUN_ANSWER)


def _inputs(stub: PromptForm) -> PromptForm:
    return _begun(stub, codet_prompts.begin_inputs)


def _inputs_chat(stub: PromptForm) -> PromptForm:
    return _asked(stub, codet_prompts.ask_for_inputs, codet_prompts.BEGUN_GENERATOR_ANSWER)


PROMPT_FORMS: dict[str, PromptForm] = {
    "verbatim": _verbatim,
    "stripped": _stripped,
    "stripped-newline": _stripped_newline,
    "chat": _chat,
    "mbpp-3shot": _mbpp_3shot,
    "mbpp-chat": _mbpp_chat,
    "without-examples": _without_examples,
    "without-examples-chat": _solution_chat(_without_examples),
    "without-examples-tests": _tests(_without_examples),
    "without-examples-tests-chat": _tests_chat(_without_examples),
    "without-examples-inputs": _inputs(_without_examples),
    "without-examples-inputs-chat": _inputs_chat(_without_examples),
    "signature": _signature,
    "signature-chat": _solution_chat(_signature),
    "signature-tests": _tests(_signature),
    "signature-tests-chat": _tests_chat(_signature),
    "signature-inputs": _inputs(_signature),
    "signature-inputs-chat": _inputs_chat(_signature),
}
"""Prompt forms by the name that protocols use."""
