"""Writing with transformers: for CPUs, for small models, and where vLLM is not installed.

The batches of a task are a function of the task alone, so that a task that is written again has the same responses to
the last bit. Requests are sorted by the length of their prompt, and each distinct prompt of a batch is prefilled once.
A finished response leaves its batch.

Shape suffixes: B rows of the batch, V vocabulary.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from shards.decoding.cache_rows import UnknownCacheError
from shards.decoding.cached_model import CachedModel
from shards.runtime import machine
from teacher_dump.errors import DumpError
from teacher_dump.model.causal_lm import load
from teacher_dump.writing.engines.base import OnTokens, TaskRequests, TaskResponses, WriterConfig
from teacher_dump.writing.engines.sampling import choose_ids
from teacher_dump.writing.task import ResponseRequest, WrittenResponse

BATCH_ANSWERS = {"cpu": 48, "cuda": 128}
"""Most responses that are written at the same time."""
CACHE_SHARE = 0.4
"""Share of a GPU's whole memory, or of a machine's, that keys and values of a batch may take."""


class TransformersWriter:
    """A writer in transformers, on the GPU if there is one.

    Args:
        config: Settings of the engine.

    Raises:
        DumpError: The model cannot be loaded, or its cache is of a kind that is not known.
    """

    def __init__(self, config: WriterConfig) -> None:
        self._config = config
        device = "cuda" if torch.cuda.is_available() else "cpu"
        machine.use_threads(torch)
        model = load(config.folder, dtype=config.dtype).to(device)
        with self._known_cache():
            self._model = CachedModel(model, vocab_size=config.vocab_size)
        self._limits = BATCH_ANSWERS[device], _cache_tokens(model, device)

    def write(self, tasks: Iterable[TaskRequests], on_tokens: OnTokens) -> Iterator[TaskResponses]:
        """Yield the tasks in order; see `ResponseWriter.write`.

        Raises:
            DumpError: The model's cache is of a kind that is not known.
        """
        for task, requests in tasks:
            responses: dict[int, WrittenResponse] = {}
            for batch in self._batches(requests):
                with torch.inference_mode():
                    for place, response in self._write_batch([requests[place] for place in batch], on_tokens):
                        responses[batch[place]] = response
            yield task, [responses[place] for place in range(len(requests))]

    def close(self) -> None:
        """Release the model."""
        del self._model

    @contextlib.contextmanager
    def _known_cache(self) -> Iterator[None]:
        try:
            yield
        except UnknownCacheError as error:
            raise DumpError(f"{self._config.folder}: {error}") from None

    def _batches(self, requests: Sequence[ResponseRequest]) -> Iterator[list[int]]:
        """Yield places of requests in batches that fit the limits: a function of the requests and the machine."""
        max_answers, max_cached = self._limits
        batch: list[int] = []
        lengths = [len(request.prompt_ids) for request in requests]
        # The sort is stable, so that the samples of one prompt stay together; the first request is the longest.
        for place in sorted(range(len(requests)), key=lambda place: -lengths[place]):
            width = lengths[batch[0] if batch else place]
            cached = (len(batch) + 1) * (width + self._config.max_new_tokens)
            if batch and (len(batch) >= max_answers or cached > max_cached):
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _write_batch(
        self, requests: Sequence[ResponseRequest], on_tokens: OnTokens
    ) -> Iterator[tuple[int, WrittenResponse]]:
        """Yield the place of each request with its response, when that is finished."""
        config = self._config
        rows = [_GrowingResponse(place, request, config.max_tokens(request)) for place, request in enumerate(requests)]
        with self._known_cache():
            logits_BV = self._model.prefill([request.prompt_ids for request in requests])
        while rows:
            draws = [row.generator.random() for row in rows]
            new_ids, logprobs = choose_ids(logits_BV, temperature=config.temperature, top_p=config.top_p, draws=draws)
            unfinished: list[int] = []
            for number, (row, new_id, logprob) in enumerate(zip(rows, new_ids, logprobs, strict=True)):
                row.ids.append(new_id)
                row.logprob += logprob
                if new_id in config.end_ids or len(row.ids) >= row.max_tokens:
                    yield row.place, config.response(row.request, row.ids, row.logprob)
                else:
                    unfinished.append(number)
            on_tokens(len(rows), len(rows) - len(unfinished))
            rows = [rows[number] for number in unfinished]
            if rows:
                logits_BV = self._model.decode([row.ids[-1] for row in rows], unfinished)


@dataclass(slots=True)
class _GrowingResponse:
    """An unfinished response."""

    place: int
    """Place of its request in the batch."""
    request: ResponseRequest
    max_tokens: int
    ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    generator: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.generator = random.Random(self.request.seed)


def _cache_tokens(model: Any, device: str) -> int:
    """Return the number of tokens whose keys and values fit CACHE_SHARE of the memory; the same on each start."""
    import psutil

    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token_bytes = 2 * config.num_hidden_layers * heads * head_size * model.dtype.itemsize
    total = torch.cuda.get_device_properties(0).total_memory if device == "cuda" else psutil.virtual_memory().total
    return max(1, int(CACHE_SHARE * total / token_bytes))
