"""Interface of the generation engines, and the values that pass through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self

from evalkit.generation.checkpoint import Checkpoint
from evalkit.tasks.presets import PromptProtocol


class Turn(NamedTuple):
    """One message of a conversation."""

    role: str
    """`user` or `assistant`."""
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Input of one answer."""

    task_id: str
    index: int
    """Number of the sample among those of its problem, from 0."""
    text: str
    """Text that the model continues; for chat models the beginning of its answer."""
    user: str | None = None
    """For chat models: the user's message. None for base models."""
    earlier: tuple[Turn, ...] = ()
    """For chat models: the conversation before `user`."""
    seed: int
    """Seed of the answer's own random numbers."""
    temperature: float | None = None
    """Sampling temperature of the answer; None for the protocol's."""
    max_new_tokens: int | None = None
    """Maximum length of the answer in tokens; None for the protocol's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Output of a model for one prompt, cut at the stop strings."""

    prompt: Prompt
    completion: str
    stop_reason: str
    """`stop` (a stop string), `end` (an end token) or `length`."""
    tokens: int
    """New tokens, including those that were cut."""
    stop_string: str = ""
    """The stop string at which it was cut; empty if there was none."""
    own_text: str | None = None
    """With tools: the completion without calls and their results."""
    transcript: tuple[dict[str, Any], ...] = ()
    """With tools: the calls in the completion, as sample files hold them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSettings:
    """Settings of an engine, apart from the protocol."""

    engine: str
    """A key of `evalkit.generation.engine.ENGINES`."""
    batch_size: int
    """Answers that are generated concurrently: at most (vLLM), or per batch (transformers)."""
    dtype: str
    """Type of weights and arithmetic: `float32`, `bfloat16` or `float16`."""
    deterministic: bool = False
    """Finish each batch before the next begins, so that the composition of batches is reproducible."""

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, as a result records them."""
        return asdict(self)

    def run_dict(self) -> dict[str, Any]:
        """Return the settings that decide a run's answers: without the batch size, unless batches are reproduced."""
        return {key: value for key, value in asdict(self).items() if key != "batch_size" or self.deterministic}


OnAnswer = Callable[[Answer], None]
"""Callback that receives each answer when it is finished."""
OnTokens = Callable[[int], None]
"""Callback that receives numbers of new tokens as they are generated; 0 once the model is loaded."""


class FollowUps(Protocol):
    """Prompts that answers lead to, such as an answer so far with the result of a tool call.

    An engine delivers an answer by `on_answer`, and takes the follow-up when it is ready. Other answers go on
    meanwhile: a slow tool does not hold them up.
    """

    extra_tokens: int
    """Tokens by which a follow-up may be longer than the longest first prompt with its answer."""

    def take(self, wait: Literal["no", "first", "all"]) -> list[Prompt]:
        """Return the follow-ups that are ready, each once.

        Args:
            wait: `no`: return at once. `first`: wait until there is one. `all`: wait until all answers so far have led
                to a follow-up or to none, and return them in the order of task and index, for reproducible batches.

        Returns:
            The prompts; none, unless `wait` is `no`, means that the answers so far lead to no other.

        Raises:
            EvalError: What makes the follow-ups has failed.
        """


class Conversations(FollowUps, Protocol):
    """Answers that are written in parts, each of which leads to the next one."""

    def receive(self, answer: Answer) -> Answer | None:
        """Take a part of an answer from the engine.

        Returns:
            The whole answer if this was its last part; None if a follow-up comes.
        """


class GenerationEngine(Protocol):
    """A model that continues prompts. Use as a context manager, which releases the model.

    An engine follows three rules, implemented in `evalkit/generation/decoding.py`. Answers are decoded together with
    their prompt. Stop strings are searched in the text of each answer. Sampling settings come from the protocol alone,
    never from the checkpoint's generation_config.
    """

    def __init__(self, checkpoint: Checkpoint, protocol: PromptProtocol, settings: EngineSettings) -> None:
        """Keep the arguments; `generate` loads the model when it is first called."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        on_answer: OnAnswer,
        on_tokens: OnTokens,
        follow_ups: FollowUps | None = None,
    ) -> None:
        """Generate an answer for each prompt; may be called several times.

        Args:
            prompts: Prompts in the order in which they are started.
            on_answer: Receives each answer when it is finished, in any order.
            on_tokens: Receives numbers of new tokens.
            follow_ups: Source of the prompts that answers lead to; None if answers lead to none. They enter the running
                batch (vLLM) or the next one (transformers).

        Raises:
            EvalError: The checkpoint cannot be loaded, or a prompt exceeds the model's context.
        """
