"""Ask a checkpoint one question, with documentation in the prompt or tools: to see what a score does many times."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.generation.base import Answer, Prompt
from evalkit.generation.checkpoint import Checkpoint, find_checkpoint, has_chat_template
from evalkit.generation.decoding import token_counter
from evalkit.generation.engine import announcement, choose_settings, load_engine
from evalkit.request import ScoreCallbacks, require_effects
from evalkit.sandbox.pool import Pool
from evalkit.tasks.base import Problem
from evalkit.tasks.presets import PromptProtocol
from evalkit.tasks.prompts import PromptText, with_documentation
from evalkit.tools.base import ToolContext, load_tools, require_known
from evalkit.tools.docs.entry import DocsEntry
from evalkit.tools.docs.index import DocsIndex
from evalkit.tools.docs.render import fitting_text
from evalkit.tools.inline.calls import CallBudget, ToolConversations
from evalkit.tools.inline.prompts import first_call, tool_prompt, tool_protocol

_NAME = "question"


@dataclass(frozen=True, kw_only=True, slots=True)
class AskRequest:
    """Settings of one question."""

    checkpoint: str
    """A folder or hub id."""
    question: str
    docs: Path | None = None
    """Index of documentation, for the prompt and for the tool `docs`."""
    docs_top_k: int = 0
    """Entries that begin the prompt."""
    docs_tokens: int = 1024
    """Most tokens of these entries."""
    tools: tuple[str, ...] = ()
    tool_first: bool = False
    """Begin the answer with a call of the first tool."""
    tool_calls: int = 4
    tool_tokens: int = 512
    """Most tokens of the results of tools."""
    engine: str = "auto"
    dtype: str = "auto"
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        require_known(self.tools)
        if self.docs is None and (self.docs_top_k or "docs" in self.tools):
            raise EvalError(
                "documentation needs --docs INDEX; build one with 'evalkit index-docs PACKAGE... --out INDEX'"
            )
        if self.docs is not None and not self.docs_top_k and "docs" not in self.tools:
            raise EvalError("--docs has no effect without --docs-top-k K or --tools docs; add one of them")
        require_effects(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedAnswer:
    """What came of a question."""

    entries: tuple[DocsEntry, ...]
    """Entries that the search gave for the prompt."""
    text: str
    """The model's answer, with calls and results."""
    transcript: tuple[dict[str, Any], ...]
    """The calls of tools."""
    tokens: int


def ask(request: AskRequest, callbacks: ScoreCallbacks) -> AskedAnswer:
    """Ask a question greedily. The answer is not executed.

    Raises:
        EvalError: The checkpoint or the index cannot be used, or a tool or engine is unknown.
    """
    checkpoint = find_checkpoint(request.checkpoint)
    entries, text = _documentation(request, checkpoint)
    chat = has_chat_template(checkpoint)
    shown = with_documentation(
        PromptText(text="", user=request.question) if chat else PromptText(text=f"{request.question}\n"), text
    )
    prompt = Prompt(task_id=_NAME, index=0, text=shown.text, user=shown.user, seed=0)
    answer = _generate(request, checkpoint, prompt, callbacks)
    return AskedAnswer(entries=entries, text=answer.completion, transcript=answer.transcript, tokens=answer.tokens)


def _documentation(request: AskRequest, checkpoint: Checkpoint) -> tuple[tuple[DocsEntry, ...], str]:
    """Return the entries for the prompt, and their text."""
    if request.docs is None or not request.docs_top_k:
        return (), ""
    with DocsIndex.open(request.docs) as index:
        entries = index.search(request.question, request.docs_top_k)
    return tuple(entries), fitting_text(entries, budget=request.docs_tokens, measure=token_counter(checkpoint))


def _generate(request: AskRequest, checkpoint: Checkpoint, prompt: Prompt, callbacks: ScoreCallbacks) -> Answer:
    """Run the engine and the tools until the answer is whole."""
    choice = choose_settings(request.engine, batch_size=1, deterministic=False, dtype=request.dtype)
    protocol = PromptProtocol(
        name=_NAME, tasks=(), source="", prompt=_NAME, answer="solution", stop=(), max_new_tokens=request.max_new_tokens
    )
    with ExitStack() as stack:
        conversations = None
        if request.tools:
            pool = stack.enter_context(Pool(workers=1))
            tools = load_tools(request.tools, ToolContext(pool=pool, docs=request.docs))
            for tool in tools:
                stack.callback(tool.close)
            opening = first_call(tools[0]) if request.tool_first else ""
            protocol = tool_protocol(protocol, tools)
            prompt = tool_prompt(prompt, tools, chat=prompt.user is not None, opening=opening)
            problem = Problem(
                task_id=_NAME, prompt=request.question, entry_points=(), prelude="", test="", reference=""
            )
            conversations = ToolConversations(
                tools,
                {_NAME: problem},
                CallBudget(calls=request.tool_calls, result_tokens=request.tool_tokens),
                max_new_tokens=request.max_new_tokens,
                count_tokens=token_counter(checkpoint),
                threads=1,
                opening=opening,
            )
            stack.callback(conversations.close)
        whole: list[Answer] = []

        def receive(part: Answer) -> None:
            answer = part if conversations is None else conversations.receive(part)
            whole.extend([answer] if answer is not None else [])

        for line in announcement(choice.settings, choice.reason, request.dtype):
            callbacks.note(line)
        engine = stack.enter_context(load_engine(checkpoint, protocol, choice.settings))
        engine.generate([prompt], on_answer=receive, on_tokens=lambda tokens: None, follow_ups=conversations)
    return whole[0]
