"""Call a generation engine in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evalkit.generation.base import Answer, EngineSettings, GenerationEngine, Prompt
from evalkit.generation.checkpoint import find_checkpoint
from evalkit.generation.engine import load_engine
from evalkit.tasks import presets, protocols
from evalkit.tasks.protocols import PromptProtocol

TEXTS = ["def add(a, b):\n", "def longer_name(first, second, third):\n    return", "x", "import math\n\n\ndef f(x):\n"]
"""Prompts of different lengths."""


def generate(
    checkpoint: Path, texts: list[str], *, engine: str = "transformers", batch_size: int = 4, **changes: Any
) -> list[Answer]:
    """Return an answer for each text, in the order in which they end.

    Args:
        checkpoint: Folder of the model.
        texts: Prompts; prompt number n gets the task id `T/n`.
        engine: Name of the engine.
        batch_size: Answers that are generated concurrently.
        **changes: Settings of the protocol; by default it is greedy with 12 new tokens.
    """
    with load(checkpoint, engine=engine, batch_size=batch_size, **changes) as loaded:
        return answers_of(loaded, texts)


def load(checkpoint: Path, *, engine: str, batch_size: int = 4, **changes: Any) -> GenerationEngine:
    """Return an engine, with the arguments of `generate`."""
    settings = EngineSettings(engine=engine, batch_size=batch_size, dtype="float32")
    return load_engine(find_checkpoint(str(checkpoint)), protocol(**changes), settings)


def protocol(**changes: Any) -> PromptProtocol:
    """Return a protocol that is greedy with 12 new tokens, but for the changes."""
    return protocols.adjust(presets.PROTOCOLS[0], **({"max_new_tokens": 12} | changes))


def answers_of(engine: GenerationEngine, texts: list[str]) -> list[Answer]:
    """Return an answer of an engine for each text, in the order in which they end."""
    prompts = [Prompt(task_id=f"T/{index}", index=0, text=text, seed=7) for index, text in enumerate(texts)]
    answers: list[Answer] = []
    engine.generate(prompts, on_answer=answers.append, on_tokens=lambda tokens: None)
    return answers


def generate_in_order(checkpoint: Path, texts: list[str], **settings: Any) -> list[Answer]:
    """Return an answer for each text, in the order of the texts (at most ten)."""
    return sorted(generate(checkpoint, texts, **settings), key=lambda answer: answer.prompt.task_id)
