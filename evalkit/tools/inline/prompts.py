"""Prompts of answers with tools: how the tools are explained, and where a model begins.

A chat model gets the explanation and the question in one message. A base model gets the same text, which ends where its
answer begins. The model begins its answer itself, or with `first_call` it is begun with a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evalkit.generation.base import Prompt
from evalkit.tasks.presets import PromptProtocol
from evalkit.tools.base import RESULT_END, RESULT_START, Tool

FORM_VERSION = 1
"""Version of the texts here; another one makes earlier samples invalid."""

_PROGRAM = "```python"
"""Beginning of the block in which models write programs."""

_PROBLEM = "\n\nProblem:\n"
_ANSWER = "\n\nAnswer:\n"


def tool_protocol(protocol: PromptProtocol, tools: Sequence[Tool] | Sequence[type[Tool]]) -> PromptProtocol:
    """Return the protocol of answers with tools: free text that holds calls, and a program in a code block at its end.

    Args:
        protocol: The protocol without tools; its question, sampling and lengths stay.
        tools: The tools.
    """
    names = "+".join(tool.name for tool in tools)
    stops = dict.fromkeys(tool.end for tool in tools)
    return replace(
        protocol,
        name=f"{protocol.name}+{names}",
        answer="solution",
        stop=(*stops, _PROBLEM),
        sanitize=True,
    )


def tool_prompt(prompt: Prompt, tools: Sequence[Tool], *, chat: bool, opening: str) -> Prompt:
    """Return the prompt of an answer with tools.

    Args:
        prompt: The prompt without tools.
        tools: The tools.
        chat: The checkpoint has a chat template.
        opening: Beginning of the answer; empty to let the model begin it.
    """
    question = prompt.user if prompt.user is not None else prompt.text
    if chat:
        return replace(prompt, user=f"{explanation(tools)}\n\n{question}", text=opening)
    return replace(prompt, user=None, text=f"{explanation(tools)}{_PROBLEM}{question}{_ANSWER}{opening}")


def first_call(tool: Tool) -> str:
    """Return the beginning of an answer that begins with a call of `tool`: few small models open one themselves."""
    return f"First I use {tool.name}:\n{tool.start}\n"


def explanation(tools: Sequence[Tool] | Sequence[type[Tool]]) -> str:
    """Return the text that explains the tools to a model."""
    parts = []
    for tool in tools:
        call, result = tool.example
        shown = f"{tool.start}\n{call}\n{tool.end.strip()}\n{RESULT_START}\n{result}\n{RESULT_END}"
        parts.append(f"{tool.system_text} Example:\n\n{shown}")
    if not any(tool.start == _PROGRAM for tool in tools):  # else the program is written in calls
        parts.append("After that, write the complete program in a markdown code block.")
    return "\n\n".join(parts)
