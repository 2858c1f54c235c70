"""Types shared by the generation engines: prompts, answers and settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One answer to be written."""

    task_id: str
    index: int
    text: str
    """What the model continues."""
    user: str | None = None
    """For chat models: what was asked before; `text` is then the beginning of the model's answer."""
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One answer, cut at the stop strings."""

    prompt: Prompt
    completion: str
    stop_reason: str
    """`stop`, `end` or `length`."""
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How an engine runs, apart from the protocol."""

    engine: str
    """`vllm` or `transformers`."""
    batch_size: int
    """Answers written side by side (transformers), or at most (vLLM)."""
    dtype: str
    """Precision of weights and arithmetic: `float32`, `bfloat16` or `float16`."""
    deterministic: bool = False
    """Each batch is finished before the next begins, so that an answer always has the same company."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
