"""Generation with transformers: for CPUs, for small models, and where vLLM is not installed.

Prompts are sorted by length, so batches hold little padding. Each distinct prompt of a batch is prefilled once, and its
keys and values are copied to its answers. A finished answer is delivered at once and leaves the batch, so later steps
cost less. Each answer draws from its own seed: apart from rounding it does not depend on the rest of its batch.

Shape suffixes: B rows of the batch, D distinct prompts, T positions, V vocabulary.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch

from evalkit.errors import EvalError
from evalkit.generation import grouped_attention
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
)
from evalkit.tasks.presets import PromptProtocol
from shards.runtime import machine
from shards.runtime.nucleus import sample_top_p

_TAIL_IDS = 16
"""New ids in which each step looks for a stop string: more tokens than any stop string has."""


class TransformersGenerationEngine:
    """Generates with a transformers model, batch by batch. See `GenerationEngine` for the interface."""

    def __init__(self, checkpoint: Checkpoint, protocol: PromptProtocol, settings: EngineSettings) -> None:
        self._checkpoint, self._protocol, self._settings = checkpoint, protocol, settings
        self._tokenizer: Any = None
        self._model: _Model | None = None
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
                    f"out of GPU memory with {size} answers at a time ({reason}); lower --batch-size, or free the GPU; "
                    "samples so far are kept"
                ) from error

    def _load(self) -> _Model:
        if self._model is None:
            self._tokenizer = load_tokenizer(self._checkpoint)
            model = _load_model(self._checkpoint, self._settings)
            self._model = _Model(model, self._protocol, pad_id=self._tokenizer.pad_token_id)
            self._ends = end_ids(self._tokenizer, self._checkpoint)
        return self._model

    def _generate_batch(self, model: _Model, rows: list[_Row], *, on_answer: OnAnswer, on_tokens: OnTokens) -> None:
        logits_BV = model.prefill([row.prompt_ids for row in rows])
        on_tokens(0)  # the model is loaded: the rate is measured from here
        context = context_length(model.config)
        while rows:
            for row, new_id in zip(rows, model.next_ids(logits_BV, rows), strict=True):
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


class _Model:
    """A model with the keys and values of its current batch."""

    def __init__(self, model: Any, protocol: PromptProtocol, *, pad_id: int) -> None:
        self.config = model.config
        self._model, self._protocol, self._pad_id = model, protocol, pad_id
        self._parameters = inspect.signature(model.forward).parameters
        self._cache: Any = None
        self._mask_BT = torch.empty(0)

    def prefill(self, prompts: list[list[int]]) -> torch.Tensor:
        """Read a batch of prompts, each distinct one once; return the next-token logits: (B, V), float32."""
        distinct = list(dict.fromkeys(map(tuple, prompts)))
        position_of = {ids: position for position, ids in enumerate(distinct)}
        positions_B = torch.tensor([position_of[tuple(ids)] for ids in prompts], device=self._model.device)
        width = max(map(len, distinct))
        padded = [[self._pad_id] * (width - len(ids)) + list(ids) for ids in distinct]
        mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in distinct]
        self._cache = None
        self._mask_BT = torch.tensor(mask, device=self._model.device)
        logits_DV = self._forward(torch.tensor(padded, device=self._model.device))
        self._keep(positions_B)
        return logits_DV[positions_B]

    def decode(self, new_ids: list[int], kept: list[int]) -> torch.Tensor:
        """Read one new id for each of the rows in `kept`; return the next-token logits: (len(kept), V), float32."""
        if len(kept) < len(self._mask_BT):
            self._keep(torch.tensor(kept, device=self._model.device))
        self._mask_BT = torch.cat([self._mask_BT, self._mask_BT.new_ones(len(kept), 1)], dim=1)
        return self._forward(torch.tensor(new_ids, device=self._model.device)[:, None])

    def next_ids(self, logits_BV: torch.Tensor, rows: list[_Row]) -> list[int]:
        """Return the next id of each row: the most probable one, or a sample from the nucleus."""
        default = self._protocol.temperature
        row_temperatures = [default if row.prompt.temperature is None else row.prompt.temperature for row in rows]
        ids = [0] * len(rows)
        for temperature in dict.fromkeys(row_temperatures):
            places = [place for place, other in enumerate(row_temperatures) if other == temperature]
            generators = [rows[place].generator for place in places]
            for place, new_id in zip(places, self._draw(logits_BV[places], generators, temperature), strict=True):
                ids[place] = new_id
        return ids

    def _draw(self, logits_BV: torch.Tensor, generators: list[random.Random], temperature: float) -> list[int]:
        if temperature == 0:
            return list(logits_BV.argmax(-1).tolist())
        probs_BV = (logits_BV / temperature).softmax(-1)
        draws_B1 = torch.tensor([[gen.random()] for gen in generators], dtype=torch.float64, device=probs_BV.device)
        return list(sample_top_p(probs_BV, self._protocol.top_p, draws_B1).tolist())

    def _forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        optional: dict[str, Any] = {}
        if "position_ids" in self._parameters:
            optional["position_ids"] = (self._mask_BT.cumsum(-1) - 1).clamp(min=0)[:, -ids_BT.shape[1] :]
        if "logits_to_keep" in self._parameters:
            optional["logits_to_keep"] = 1
        output = self._model(
            input_ids=ids_BT, attention_mask=self._mask_BT, past_key_values=self._cache, use_cache=True, **optional
        )
        self._cache = output.past_key_values
        return torch.as_tensor(output.logits[:, -1].float())

    def _keep(self, positions_B: torch.Tensor) -> None:
        self._cache.batch_select_indices(positions_B)
        self._mask_BT = self._mask_BT[positions_B]


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
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(grouped_attention.register())
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
