"""The interface of the engines that write, and the settings that each of them reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from teacher_dump.writing.task import ResponseRequest, WritingTask, WrittenResponse

TaskRequests = tuple[WritingTask, Sequence[ResponseRequest]]
"""A task with its requests, in the order of prompts and indices."""
TaskResponses = tuple[WritingTask, Sequence[WrittenResponse]]
"""A task with its responses, in the order of its requests."""
OnTokens = Callable[[int, int], None]
"""Receives numbers of new tokens and of finished responses as they come."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WriterConfig:
    """Settings of an engine that writes."""

    folder: Path
    """Transformers folder of the writer."""
    tokenizer: Any
    """Its fast transformers tokenizer."""
    vocab_size: int
    """Number of token ids that the tokenizer has."""
    padded_vocab_size: int
    """Number of rows of the model's embedding. Ids from `vocab_size` on are padding, and never part of a response."""
    end_ids: frozenset[int]
    """Token ids that end a response."""
    dtype: str
    """float32 or bfloat16, never auto."""
    temperature: float
    """Temperature of the samples; 0 is greedy."""
    top_p: float
    max_new_tokens: int
    """Most tokens of a response, the end-of-turn token included."""
    max_length: int
    """Most tokens of a prompt with its response that the model takes."""
    used_length: int
    """Most tokens of a prompt with its response in this run."""
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    gpu_memory_utilization: float | None = None
    """Share of a GPU's memory for the engine; the engine's default if None."""
    max_num_batched_tokens: int | None = None
    """Largest number of tokens of one engine step; the engine's default if None."""
    quantization: str | None = None
    """Quantisation method; the one in the writer's config if None."""

    def max_tokens(self, request: ResponseRequest) -> int:
        """Return the most tokens of the response to a request."""
        return min(self.max_new_tokens, self.max_length - len(request.prompt_ids))

    def response(self, request: ResponseRequest, ids: Sequence[int], logprob: float) -> WrittenResponse:
        """Return the response of finished ids."""
        ended = ids[-1] in self.end_ids
        return WrittenResponse(
            request=request,
            ids=tuple(ids),
            text=response_text(self.tokenizer, request.prompt_ids, ids[:-1] if ended else ids),
            finish_reason="stop" if ended else "length",
            logprob=logprob,
        )


class ResponseWriter(Protocol):
    """A loaded writer. The constructor takes a `WriterConfig`; `registry.WRITERS` lists the implementations."""

    def write(self, tasks: Iterable[TaskRequests], on_tokens: OnTokens) -> Iterator[TaskResponses]:
        """Yield each task with its responses when the last of them is finished.

        Args:
            tasks: The tasks, taken as the engine has room for more.
            on_tokens: Receives progress.
        """

    def close(self) -> None:
        """Release the memory and the processes of the engine."""


def response_text(tokenizer: Any, prompt_ids: Sequence[int], ids: Sequence[int]) -> str:
    """Return the text of generated ids, decoded behind the end of their prompt.

    A SentencePiece tokenizer drops the first space of a text that it decodes alone.
    """

    def decode(values: Sequence[int]) -> str:
        return str(tokenizer.decode(list(values), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    num_behind = _CONTEXT_IDS
    # Bytes behind a part of a character decode to U+FFFD, too: begin with a whole one.
    while num_behind < len(prompt_ids) and decode(prompt_ids[-num_behind:]).startswith("\ufffd"):
        num_behind += 1
    behind = prompt_ids[-num_behind:]
    prompt, whole = decode(behind), decode([*behind, *ids])
    # A prompt that ends inside a character decodes to U+FFFD, which further ids turn into that character.
    while not whole.startswith(prompt):
        prompt = prompt[:-1]
    return whole[len(prompt) :]


_CONTEXT_IDS = 8
"""Ids of the prompt that are decoded with a response, or a few more: the effect on its first character reaches no
further."""
