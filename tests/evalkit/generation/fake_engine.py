"""A generation engine for tests that gives one fixed answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from evalkit.generation.base import Answer, EngineSettings, FollowUps, OnAnswer, OnTokens, Prompt
from evalkit.generation.checkpoint import Checkpoint
from evalkit.tasks.presets import PromptProtocol


class FixedAnswerEngine:
    """Answers every prompt with the same text. See `GenerationEngine` for the interface."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        on_answer: OnAnswer,
        on_tokens: OnTokens,
        follow_ups: FollowUps | None = None,
    ) -> None:
        """Deliver the answers in the order of the prompts."""
        for prompt in prompts:
            on_answer(Answer(prompt=prompt, completion=self._text, stop_reason="stop", tokens=1))


class ReturnEngine(FixedAnswerEngine):
    """Answers every prompt with `return None`; has the constructor of an engine."""

    def __init__(self, checkpoint: Checkpoint, protocol: PromptProtocol, settings: EngineSettings) -> None:
        super().__init__("    return None\n")
