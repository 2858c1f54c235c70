"""Generation with transformers: for CPUs, for small models, and where vLLM is not installed.

Prompts are sorted by length, so batches hold little padding. A finished answer is delivered at once and leaves the
batch, so later steps cost less. Each answer draws from its own seed: apart from rounding it does not depend on the rest
of its batch.

Shape suffixes: B rows of the batch, V vocabulary.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch

from evalkit.errors import EvalError
from evalkit.generation.base import Answer, EngineSettings, FollowUps, OnAnswer, OnTokens, Prompt
from evalkit.generation.checkpoint import Checkpoint
from evalkit.generation.decoding import (
    PromptQueue,
    context_length,
    cut_at_stop,
    encode_prompts,
    end_ids,
    load_tokenizer,
    loading_error,
    make_answer,
    memory_advice,
)
from evalkit.tasks.presets import PromptProtocol
from shards.decoding.cache_rows import UnknownCacheError
from shards.decoding.cached_model import CachedModel
from shards.decoding.top_p import sample_top_p
from shards.runtime import machine

_TAIL_IDS = 16
"""New ids in which each step looks for a stop string: more tokens than any stop string has."""


class TransformersGenerationEngine:
    """Generates with a transformers model, batch by batch. See `GenerationEngine` for the interface."""

    def __init__(self, checkpoint: Checkpoint, protocol: PromptProtocol, settings: EngineSettings) -> None:
        self._checkpoint, self._protocol, self._settings = checkpoint, protocol, settings
        self._tokenizer: Any = None
        self._model: CachedModel | None = None
        self._ends: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model = None

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        on_answer: OnAnswer,
        on_tokens: OnTokens,
        follow_ups: FollowUps | None = None,
    ) -> None:
        """See `GenerationEngine.generate`."""
        model = self._load()
        queue = PromptQueue(
            prompts,
            encode_prompts(self._checkpoint, self._tokenizer, prompts, model.config),
            tokenizer=self._tokenizer,
            follow_ups=follow_ups,
            on_answer=on_answer,
            deterministic=self._settings.deterministic,
        )
        size, context = self._settings.batch_size, context_length(model.config)
        while batch := queue.take(size, max_len=context, is_idle=True):
            rows = [_Row(prompt, ids) for prompt, ids in batch]
            try:
                with torch.inference_mode():
                    self._generate_batch(model, rows, on_answer=on_answer, on_tokens=on_tokens)
            except torch.OutOfMemoryError as error:
                reason = str(error).partition(". ")[0]
                raise EvalError(
                    f"out of GPU memory with {size} answers at a time ({reason}); {memory_advice(self._settings)}"
                ) from error

    def _load(self) -> CachedModel:
        if self._model is None:
            self._tokenizer = load_tokenizer(self._checkpoint)
            model = _load_model(self._checkpoint, self._settings)
            with _known_cache(self._checkpoint):
                self._model = CachedModel(model)
            self._ends = end_ids(self._tokenizer, self._checkpoint)
        return self._model

    def _generate_batch(
        self, model: CachedModel, rows: list[_Row], *, on_answer: OnAnswer, on_tokens: OnTokens
    ) -> None:
        with _known_cache(self._checkpoint):
            logits_BV = model.prefill([row.prompt_ids for row in rows])
        on_tokens(0)  # the model is loaded: the rate is measured from here
        context = context_length(model.config)
        while rows:
            for row, new_id in zip(rows, _next_ids(logits_BV, rows, self._protocol), strict=True):
                row.new_ids.append(new_id)
            on_tokens(len(rows))
            tails = self._tokenizer.batch_decode([row.new_ids[-_TAIL_IDS:] for row in rows])
            unfinished = []
            for position, (row, tail) in enumerate(zip(rows, tails, strict=True)):
                if (answer := self._finished(row, tail, context)) is None:
                    unfinished.append(position)
                else:
                    on_answer(answer)
            rows = [rows[position] for position in unfinished]
            if rows:
                logits_BV = model.decode([row.new_ids[-1] for row in rows], unfinished)

    def _finished(self, row: _Row, tail: str, context: int) -> Answer | None:
        """Return the answer if it has ended: by an end id, by a stop string in its `tail`, or by its maximum length."""
        most = row.prompt.max_new_tokens or self._protocol.max_new_tokens
        is_full = len(row.new_ids) >= min(most, context - len(row.prompt_ids))
        ended = row.new_ids[-1] in self._ends
        if not (is_full or ended or cut_at_stop(tail, self._protocol.stop)[1]):
            return None
        answer = make_answer(self._tokenizer, row.prompt, row.prompt_ids, row.new_ids, self._protocol, self._ends)
        # A tail that is decoded alone may seem to hold a stop string that the whole answer does not.
        return answer if is_full or answer.stop_reason != "length" else None


@dataclass(slots=True)
class _Row:
    """An unfinished answer."""

    prompt: Prompt
    prompt_ids: list[int]
    new_ids: list[int] = field(default_factory=list)
    generator: random.Random = field(init=False)
    """Random numbers for sampling."""

    def __post_init__(self) -> None:
        self.generator = random.Random(self.prompt.seed)


def _next_ids(logits_BV: torch.Tensor, rows: Sequence[_Row], protocol: PromptProtocol) -> list[int]:
    """Return the next id of each row: the most probable one, or a sample from the nucleus."""
    default = protocol.temperature
    row_temperatures = [default if row.prompt.temperature is None else row.prompt.temperature for row in rows]
    ids = [0] * len(rows)
    for temperature in dict.fromkeys(row_temperatures):
        places = [place for place, other in enumerate(row_temperatures) if other == temperature]
        generators = [rows[place].generator for place in places]
        new_ids = _draw(logits_BV[places], generators, temperature=temperature, top_p=protocol.top_p)
        for place, new_id in zip(places, new_ids, strict=True):
            ids[place] = new_id
    return ids


def _draw(logits_BV: torch.Tensor, generators: list[random.Random], *, temperature: float, top_p: float) -> list[int]:
    if temperature == 0:
        return list(logits_BV.argmax(-1).tolist())
    probs_BV = (logits_BV / temperature).softmax(-1)
    draws_B1 = torch.tensor([[gen.random()] for gen in generators], dtype=torch.float64, device=probs_BV.device)
    return list(sample_top_p(probs_BV, top_p, draws_B1).tolist())


@contextlib.contextmanager
def _known_cache(checkpoint: Checkpoint) -> Iterator[None]:
    """Turn the error about a cache whose rows cannot be selected into one of evalkit."""
    try:
        yield
    except UnknownCacheError as error:
        raise EvalError(f"{checkpoint.source}: {error}") from None


def _load_model(checkpoint: Checkpoint, settings: EngineSettings) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    machine.use_threads(torch)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            checkpoint.source, revision=checkpoint.revision, dtype=getattr(torch, settings.dtype)
        )
    except Exception as error:  # safetensors, torch and each model class raise their own errors on bad files
        raise loading_error(checkpoint, "model", error) from error
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
