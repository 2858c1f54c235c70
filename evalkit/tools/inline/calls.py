"""Calls of tools while answers are written: stop at an end string, run the tool, insert its result, go on.

The engine delivers a part of an answer at each stop. `ToolConversations` runs the tool on a thread, and the engine
takes the answer so far with the result as a follow-up prompt when it is ready; other answers go on meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from evalkit.generation.base import Answer, Prompt
from evalkit.outputs.files import sha256_text
from evalkit.tasks.base import Problem
from evalkit.tools.base import RESULT_END, RESULT_START, Tool, ToolSession

NO_CALLS_LEFT = "No calls are left. Write the answer."
"""Result of a call beyond the limit of calls or of tokens."""

_FRAME_TOKENS = 32
"""Tokens of the strings around a result, at most, with those by which text encodes longer than it was generated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallBudget:
    """What the calls of one answer may take."""

    calls: int
    """Calls that are made. The model may ask once more, is told that none is left, and after that the answer ends."""
    result_tokens: int
    """Tokens of all results. A longer result is cut."""

    @property
    def extra_tokens(self) -> int:
        """Tokens by which results make an answer longer, at most."""
        return self.result_tokens + _FRAME_TOKENS * (self.calls + 1)


@dataclass(kw_only=True, slots=True)
class _Conversation:
    """One answer that is being written."""

    prompt: Prompt
    text: str = ""
    """The answer so far, with calls and results, without the opening that its prompt ends in."""
    own: str = ""
    """The answer up to the last call, without calls and results."""
    pending: str
    """The answer from the last result on, with the opening if there was none."""
    tokens: int = 0
    result_tokens: int = 0
    num_parts: int = 0
    is_told: bool = False
    """The model was told that no calls are left."""
    transcript: list[dict[str, Any]] = field(default_factory=list)
    sessions: dict[str, ToolSession] = field(default_factory=dict)

    def close(self) -> None:
        """End the sessions of the tools."""
        for session in tuple(self.sessions.values()):  # a call may be about to add one
            session.close()


class _Call(NamedTuple):
    """A call at the end of a text."""

    tool: Tool
    before: str
    """The text before it."""
    text: str
    """What is between the tool's strings."""


class ToolConversations:
    """All answers that are being written with tools. See `Conversations` for the interface."""

    def __init__(
        self,
        tools: Sequence[Tool],
        problems: dict[str, Problem],
        budget: CallBudget,
        *,
        max_new_tokens: int,
        count_tokens: Callable[[str], int],
        threads: int,
        opening: str = "",
    ) -> None:
        """Begin without any answer.

        Args:
            tools: Tools with distinct start strings.
            problems: Problems by task id.
            budget: What the calls of one answer may take.
            max_new_tokens: Tokens that a model may generate for one answer, all parts together.
            count_tokens: Counts the tokens of a text.
            threads: Calls that are made at the same time.
            opening: Beginning of all answers, in which their prompts end; may hold the start of a call.
        """
        self.extra_tokens = budget.extra_tokens
        self._tools = tuple(tools)
        self._problems, self._budget = problems, budget
        self._max_new_tokens, self._count_tokens, self._opening = max_new_tokens, count_tokens, opening
        strings = {RESULT_START, RESULT_END, *(text.strip() for tool in tools for text in (tool.start, tool.end))}
        self._unsafe = sorted(strings, key=lambda text: (-len(text), text))
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="tool")
        self._open: dict[tuple[str, int], _Conversation] = {}
        self._running: set[Future[Prompt]] = set()

    def receive(self, answer: Answer) -> Answer | None:
        """See `Conversations.receive`."""
        key = (answer.prompt.task_id, answer.prompt.index)
        if key not in self._open:
            self._open[key] = _Conversation(prompt=answer.prompt, pending=self._opening)
        state = self._open[key]
        state.tokens += answer.tokens
        answer = self._closed(state, answer)
        state.pending += answer.completion
        call = self._open_call(state.pending, answer.stop_string)
        is_end = answer.stop_string not in [tool.end for tool in self._tools]
        if is_end or (call is not None and state.is_told):
            return self._finish(state, answer)
        state.text += answer.completion + answer.stop_string
        if state.tokens >= self._max_new_tokens:
            return self._finish(state, replace(answer, completion="", stop_reason="length", stop_string=""))
        state.num_parts += 1
        if call is not None:
            state.own += call.before
            state.pending = ""
            self._running.add(self._executor.submit(self._call, state, call))
        else:  # the string ended something else: the model goes on
            state.pending += answer.stop_string
            self._running.add(self._executor.submit(self._next_prompt, state))
        return None

    def _closed(self, state: _Conversation, answer: Answer) -> Answer:
        """Return the part of an answer, cut at an end string that lacks only its line break because the model ended.

        Only the first call is made so: the model sees a result before it ends. Later, such a block is the answer.
        """
        if answer.stop_reason != "end" or state.transcript or state.is_told:
            return answer
        for tool in self._tools:
            close = tool.end.removesuffix("\n")
            text = answer.completion.removesuffix(close)
            if text != answer.completion and self._open_call(state.pending + text, tool.end) is not None:
                return replace(answer, completion=text, stop_reason="stop", stop_string=tool.end)
        return answer

    def _open_call(self, text: str, end: str) -> _Call | None:
        """Return the call that `end` ends, at the end of `text`; None if none was begun or another `end` ended it."""
        begun = [(text.rfind(tool.start), tool) for tool in self._tools if end and tool.end == end]
        position, tool = max(begun, key=lambda item: item[0], default=(-1, None))
        if tool is None or position < 0 or end in (call := text[position + len(tool.start) :]):
            return None
        return _Call(tool, text[:position], call)

    def take(self, wait: Literal["no", "first", "all"]) -> list[Prompt]:
        """See `FollowUps.take`."""
        if wait != "no":
            futures.wait(self._running, return_when="FIRST_COMPLETED" if wait == "first" else "ALL_COMPLETED")
        done = [future for future in self._running if future.done()]
        self._running.difference_update(done)
        return sorted((future.result() for future in done), key=lambda prompt: (prompt.task_id, prompt.index))

    def close(self) -> None:
        """Cancel calls that have not begun, and end all sessions; calls that run end with their tools."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        for state in self._open.values():
            state.close()
        self._open.clear()

    def _call(self, state: _Conversation, call: _Call) -> Prompt:
        """Make a call, on a thread of its own; return the prompt of the answer's next part."""
        started, tool = time.monotonic(), call.tool
        room = self._budget.result_tokens - state.result_tokens
        if len(state.transcript) >= self._budget.calls or room <= 0:
            state.is_told = True
            result = NO_CALLS_LEFT
        else:
            if tool.name not in state.sessions:
                state.sessions[tool.name] = tool.open(self._problems[state.prompt.task_id])
            result = self._cut(self._safe(state.sessions[tool.name].call(call.text)), room)
            state.result_tokens += self._count_tokens(result)
            seconds = round(time.monotonic() - started, 3)
            state.transcript.append({"tool": tool.name, "text": call.text, "result": result, "seconds": seconds})
        gap = "" if state.text.endswith("\n") else "\n"
        state.text += f"{gap}{RESULT_START}\n{result}\n{RESULT_END}\n"
        return self._next_prompt(state)

    def _next_prompt(self, state: _Conversation) -> Prompt:
        """Return the prompt of the answer's next part."""
        prompt = state.prompt
        seed = int(sha256_text(f"{prompt.seed} part {state.num_parts}")[:8], 16)
        left = self._max_new_tokens - state.tokens
        return replace(prompt, text=prompt.text + state.text, seed=seed, max_new_tokens=left)

    def _finish(self, state: _Conversation, answer: Answer) -> Answer:
        """Return the whole answer, whose last part is `answer`."""
        del self._open[state.prompt.task_id, state.prompt.index]
        state.close()
        return replace(
            answer,
            prompt=state.prompt,
            completion=self._opening + state.text + answer.completion,
            tokens=state.tokens,
            own_text=state.own + state.pending,
            transcript=tuple(state.transcript),
        )

    def _safe(self, result: str) -> str:
        """Return a result in which no string of the form of calls or results, and no special token, is left."""
        for text in self._unsafe:
            result = result.replace(text, f"{text[0]} {text[1:]}")
        return result.replace("<|", "< |")

    def _cut(self, result: str, room: int) -> str:
        """Return the beginning of a result of at most `room` tokens."""
        mark, kept = "", result
        while kept and (count := self._count_tokens(kept + mark)) > room:
            mark = " ..."
            kept = kept[: min(len(kept) - 1, len(kept) * room // count)]
        return kept + mark if kept else ""
