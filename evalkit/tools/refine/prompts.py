"""The prompt of a further attempt, in one of three forms.

`conversation`: all attempts so far, and what each did on a visible test. A chat model gets the conversation by its own
template, and its answer begins as the first one did. A base model gets a text in which each attempt is followed by a
commented failure and the beginning of the function again.

`failure`: the first prompt, and the failures without the programs. There is no program to copy.

`sample`: the first prompt alone. Only the choice by visible tests is left of refinement.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from evalkit.generation.base import Prompt, Turn
from evalkit.outputs.files import sha256_text
from evalkit.samples.base import Sample
from evalkit.tasks.presets import PromptProtocol
from evalkit.tools.refine.attempts import Attempt

MESSAGES_VERSION = 3
"""Version of the texts in this module and of `visible.VisibleOutcome.failure`; part of a run's digest."""

LEAST_TEMPERATURES = {"conversation": 0.6, "failure": 0.6, "sample": 0.8}
"""Least sampling temperature of further attempts: greedily, small models repeat the program that failed."""

_FENCE = "```"


def next_prompt(first: Prompt, attempts: Sequence[Attempt], protocol: PromptProtocol, *, form: str) -> Prompt:
    """Return the prompt of the attempt after `attempts`. It is sampled, and its seed depends on all that it shows.

    Args:
        first: The prompt of the first attempt.
        attempts: The attempts so far; the last one failed a visible test.
        protocol: The protocol of the first prompt.
        form: One of `request.REFINE_FORMS`.
    """
    first = replace(first, temperature=max(LEAST_TEMPERATURES[form], protocol.temperature))
    if form == "sample":
        return _seeded(first, len(attempts))
    if form == "failure":
        return _seeded(_with_failures(first, attempts, protocol))
    if first.user is None:
        return _seeded(replace(first, text=_text(first, attempts, protocol)))
    return _seeded(_conversation(first, first.user, attempts, protocol))


def _conversation(first: Prompt, message: str, attempts: Sequence[Attempt], protocol: PromptProtocol) -> Prompt:
    """Return the prompt that ends a conversation, which `message` began."""
    earlier: list[Turn] = list(first.earlier)
    for attempt in attempts:
        answer = _closed(first.text + answer_of(attempt.sample, first, protocol))
        earlier += [Turn("user", message), Turn("assistant", answer)]
        message = chat_message(attempt)
    return replace(first, user=message, earlier=tuple(earlier))


def _with_failures(first: Prompt, attempts: Sequence[Attempt], protocol: PromptProtocol) -> Prompt:
    """Return the first prompt with the failures of all attempts: after the task, or in a comment before the answer."""
    note = failure_note(attempts, protocol)
    if first.user is not None:
        return replace(first, user=f"{first.user.rstrip()}\n\n{note}")
    start = _answer_start(first.text, protocol)
    return replace(first, text=f"{first.text[:start]}{note}{first.text[start:]}")


def _seeded(prompt: Prompt, *further: int) -> Prompt:
    """Return the prompt with a seed that its first prompt's seed, its own text and further numbers decide."""
    shown = [prompt.seed, prompt.earlier, prompt.user, prompt.text, *further]
    return replace(prompt, seed=int(sha256_text(json.dumps(shown))[:8], 16))


def message_after(attempts: Sequence[Attempt], protocol: PromptProtocol, *, form: str) -> str:
    """Return what the model is told after failed attempts, as sample files and pages show it; "" if nothing."""
    if form == "sample" or not attempts:
        return ""
    if form == "failure":
        return failure_note(attempts, protocol)
    return chat_message(attempts[-1]) if protocol.is_chat else comment(attempts[-1])


def failure_note(attempts: Sequence[Attempt], protocol: PromptProtocol) -> str:
    """Return the failures of all attempts without their programs: a text, or the comment that a base model reads."""
    failures = "\n".join(dict.fromkeys(attempt.outcome.failure for attempt in attempts))
    if protocol.is_chat:
        return f"An earlier program was not correct. {failures}\n"
    return _commented(f"An earlier version of this function was not correct. {failures}")


def chat_message(attempt: Attempt) -> str:
    """Return the message to a chat model."""
    return f"The program is not correct. {attempt.outcome.failure}\nPlease correct the program."


def comment(attempt: Attempt) -> str:
    """Return the comment that a base model reads."""
    return _commented(f"The function above is not correct. {attempt.outcome.failure}\nThe corrected function:")


def _commented(text: str) -> str:
    return "".join(f"# {line}\n" for line in text.splitlines())


def answer_of(sample: Sample, first: Prompt, protocol: PromptProtocol) -> str:
    """Return the text that the model wrote: not only the program in it."""
    if sample.raw is not None:
        return sample.raw
    if protocol.answer == "continuation":
        return (sample.solution or "").removeprefix(first.text)
    return sample.completion if sample.completion is not None else sample.solution or ""


def _closed(answer: str) -> str:
    """Return an answer whose code block is closed: the stop string cut its end."""
    return f"{answer.rstrip()}\n{_FENCE}" if answer.count(_FENCE) % 2 else answer


def _text(first: Prompt, attempts: Sequence[Attempt], protocol: PromptProtocol) -> str:
    """Return the text that a base model continues."""
    again, end = first.text[_answer_start(first.text, protocol) :], "\n\n\n"
    if protocol.answer == "solution" and protocol.stop:
        end = f"\n{protocol.stop[0]}\n\n"
    whole = first.text
    for attempt in attempts:
        whole += f"{answer_of(attempt.sample, first, protocol).rstrip()}{end}{comment(attempt)}{again}"
    return whole


def _answer_start(text: str, protocol: PromptProtocol) -> int:
    """Return where the answer begins in a base model's text: its last line, after examples of questions and answers."""
    return text.rfind("\n", 0, -1) + 1 if protocol.answer == "solution" else 0
