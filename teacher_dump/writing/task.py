"""Writing tasks: the responses that are written and stored together.

A task holds consecutive prompts with all their samples. Like a task of windows it is named by its place in the order
and a digest of its inputs. Every response has a seed of its own, a function of the prompt, its index and the dump's
seed, so that it does not depend on the task or on restarts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from teacher_dump.writing.prompts.prompt import ResponsePrompt

FinishReason = Literal["stop", "length"]
"""Whether a response ended by itself, or was cut at its largest length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WritingTask:
    """Prompts whose responses become one file."""

    name: str
    """File name."""
    prompts: tuple[ResponsePrompt, ...]
    samples: int
    """Responses to each prompt."""

    @property
    def num_answers(self) -> int:
        """Number of responses."""
        return len(self.prompts) * self.samples


@dataclass(frozen=True, kw_only=True, slots=True)
class ResponseRequest:
    """One response that is to be written."""

    prompt: ResponsePrompt
    index: int
    """Number of the response among those to its prompt, from 0."""
    seed: int
    """Seed of its random numbers, 32 bits."""
    prompt_ids: tuple[int, ...]
    """Token ids that the writer continues."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenResponse:
    """A response as the model wrote it."""

    request: ResponseRequest
    ids: tuple[int, ...]
    """Generated token ids, the end-of-turn token included."""
    text: str
    """Their text, without special tokens."""
    finish_reason: FinishReason
    logprob: float
    """Sum of the ids' log-probabilities under the model at temperature 1, in nats."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of a line of responses.jsonl, without those that all responses share."""
        request, prompt = self.request, self.request.prompt
        return {
            "task_id": prompt.task_id,
            "index": request.index,
            "messages": prompt.conversation(),
            "completion": self.text,
            "prompt_ids": list(request.prompt_ids),
            "ids": list(self.ids),
            "finish_reason": self.finish_reason,
            "logprob": self.logprob,
            "mean_logprob": self.logprob / len(self.ids),
            "seed": request.seed,
            "document": prompt.document,
            "source": prompt.source,
            "path": prompt.path,
            "licence": prompt.licence,
        }


def response_seed(seed: int, document: str, index: int) -> int:
    """Return the seed of a response: 32 bits of a digest of the dump's seed, the prompt and the index."""
    return int(hashlib.sha256(f"{seed} {document} {index}".encode()).hexdigest()[:8], 16)


def group_prompts(
    prompts: Sequence[ResponsePrompt], *, samples: int, answers_per_task: int, fingerprint: str
) -> Iterator[WritingTask]:
    """Yield tasks of about `answers_per_task` responses, at least one prompt each: a pure function of the arguments.

    Args:
        prompts: The prompts, in order.
        samples: Responses to each.
        answers_per_task: Responses of a task.
        fingerprint: Digest of everything else that decides the responses.
    """
    size = max(1, answers_per_task // samples)
    for number, start in enumerate(range(0, len(prompts), size)):
        group = tuple(prompts[start : start + size])
        digest = hashlib.sha256(fingerprint.encode())
        for prompt in group:
            digest.update(f"{prompt.document} {prompt.task_id}\n".encode("utf-8", "backslashreplace"))
        name = f"{number:06d}-{digest.hexdigest()[:12]}.jsonl"
        yield WritingTask(name=name, prompts=group, samples=samples)
