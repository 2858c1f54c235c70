"""A toy tool, and an engine that answers by a script and takes follow-ups."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from evalkit.generation.base import Answer, FollowUps, OnAnswer, OnTokens, Prompt
from evalkit.generation.decoding import cut_at_stop
from evalkit.tasks.base import Problem
from tests.evalkit.generation.fake_engine import FixedAnswerEngine

PROBLEM = Problem(task_id="T/0", prompt="", entry_points=("f",), prelude="", test="secret test", reference="")


class UpperTool:
    """Returns the call in capitals. A call `wait` waits for `released`; `many` gives many words; `fail` raises."""

    name = "upper"
    start, end = "<up>", "</up>"
    system_text = "You can call a tool."
    example = ("a", "A")

    def __init__(self) -> None:
        self.released = threading.Event()
        self.opened: list[str] = []
        self.num_closed = 0

    def open(self, problem: Problem) -> UpperSession:
        self.opened.append(problem.task_id)
        return UpperSession(self)

    def to_dict(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self.released.set()


class UpperSession:
    """A session of the toy tool, which counts its calls."""

    def __init__(self, tool: UpperTool) -> None:
        self._tool = tool
        self._num_calls = 0

    def call(self, text: str) -> str:
        self._num_calls += 1
        if text == "wait":
            assert self._tool.released.wait(30)
        if text == "fail":
            raise ValueError("the tool is broken")
        return "word " * 100 if text == "many" else f"{text.upper()} {self._num_calls}"

    def close(self) -> None:
        self._tool.num_closed += 1


class TalkingEngine(FixedAnswerEngine):
    """Answers each prompt by `script`, in the order in which prompts come, one token a word."""

    def __init__(self, script: Callable[[Prompt], str], stops: Sequence[str]) -> None:
        super().__init__("")
        self._script, self._stops = script, stops
        self.prompts: list[Prompt] = []
        self.last_reason = "end"  # of answers without a stop string

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        on_answer: OnAnswer,
        on_tokens: OnTokens,
        follow_ups: FollowUps | None = None,
    ) -> None:
        queue = deque(prompts)
        while queue:
            prompt = queue.popleft()
            self.prompts.append(prompt)
            text = self._script(prompt)
            completion, stop = cut_at_stop(text, self._stops)
            tokens = len(text.split()) or 1
            reason = "stop" if stop else self.last_reason
            on_answer(Answer(prompt=prompt, completion=completion, stop_reason=reason, tokens=tokens, stop_string=stop))
            if follow_ups is not None:
                queue.extend(follow_ups.take("no" if queue else "first"))
