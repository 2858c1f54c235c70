"""What does the model write, by transformers? For CPUs, small models, and where vLLM is not.

Prompts come sorted by length, so a batch holds little padding. Each distinct prompt of a batch is read once and
its keys and values are shared out to its answers. An answer that ends is handed out at once and leaves the
batch, so that later steps cost less. Each answer draws from its own seed: what it becomes does not depend on
what is beside it, but for rounding.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from evalkit.generation.base import Answer, Prompt, Settings
from evalkit.generation.checkpoint import Checkpoint
from evalkit.generation.decoding import cannot_load, end_ids, finish, fitting_ids, load_tokenizer
from evalkit.generation.top_p import keep_nucleus
from evalkit.tasks.protocols import Protocol, cut
from shards.runtime import machine

_TAIL_IDS = 16
"""New ids in which a stop string is looked for at each step: longer than any stop string in tokens."""


def write_answers(
    checkpoint: Checkpoint,
    prompts: list[Prompt],
    protocol: Protocol,
    settings: Settings,
    *,
    on_answer: Callable[[Answer], None],
    on_tokens: Callable[[int], None],
) -> None:
    """See `generate.write_answers`."""
    tokenizer = load_tokenizer(checkpoint)
    model = _Model(_load_model(checkpoint, settings), protocol, pad_id=tokenizer.pad_token_id)
    ends = end_ids(tokenizer, checkpoint)
    ids = fitting_ids(checkpoint, tokenizer, prompts, model.config)
    longest = getattr(model.config, "max_position_embeddings", None) or 1 << 30

    def finished(row: _Row) -> Answer | None:
        room = min(protocol.max_new_tokens, longest - len(row.prompt_ids))
        return _finished(tokenizer, row, protocol, ends, room)

    for start in range(0, len(prompts), settings.batch_size):
        batch = slice(start, start + settings.batch_size)
        rows = [_Row(prompt, given) for prompt, given in zip(prompts[batch], ids[batch], strict=True)]
        with torch.inference_mode():
            _write_batch(model, rows, finished=finished, on_answer=on_answer, on_tokens=on_tokens)


@dataclass(slots=True)
class _Row:
    """An answer being written."""

    prompt: Prompt
    prompt_ids: list[int]
    new_ids: list[int] = field(default_factory=list)
    chance: random.Random = field(init=False)
    """What sampling draws from."""

    def __post_init__(self) -> None:
        self.chance = random.Random(self.prompt.seed)


def _write_batch(
    model: _Model,
    rows: list[_Row],
    *,
    finished: Callable[[_Row], Answer | None],
    on_answer: Callable[[Answer], None],
    on_tokens: Callable[[int], None],
) -> None:
    logits = model.read([row.prompt_ids for row in rows])
    on_tokens(0)  # loaded: the clock of the rate starts
    while rows:
        for row, new_id in zip(rows, model.choose(logits, [row.chance for row in rows]), strict=True):
            row.new_ids.append(new_id)
        on_tokens(len(rows))
        kept = []
        for place, row in enumerate(rows):
            if (answer := finished(row)) is None:
                kept.append(place)
            else:
                on_answer(answer)
        rows = [rows[place] for place in kept]
        if rows:
            logits = model.go_on([row.new_ids[-1] for row in rows], kept)


def _finished(tokenizer: Any, row: _Row, protocol: Protocol, ends: list[int], room: int) -> Answer | None:
    """Return the answer if it has ended: by the model, by a stop string, or for want of room."""
    full = len(row.new_ids) >= room
    ended = row.new_ids[-1] in ends
    if not (full or ended or cut(tokenizer.decode(row.new_ids[-_TAIL_IDS:]), protocol.stop)[1]):
        return None
    answer = finish(tokenizer, row.prompt, row.prompt_ids, row.new_ids, protocol, ends)
    # A tail decoded alone may seem to hold a stop string that the whole answer does not.
    return answer if full or answer.stop_reason != "length" else None


class _Model:
    """A model, and the keys and values of the batch that it writes."""

    def __init__(self, model: Any, protocol: Protocol, *, pad_id: int) -> None:
        self.config = model.config
        self._model, self._protocol, self._pad_id = model, protocol, pad_id
        self._takes = inspect.signature(model.forward).parameters
        self._cache: Any = None
        self._mask = torch.empty(0)

    def read(self, prompts: list[list[int]]) -> torch.Tensor:
        """Read a batch of prompts, each distinct one once; return what may follow each: (batch, vocab), float32."""
        distinct = list(dict.fromkeys(map(tuple, prompts)))
        places = torch.tensor([distinct.index(tuple(prompt)) for prompt in prompts], device=self._model.device)
        width = max(map(len, distinct))
        padded = [[self._pad_id] * (width - len(ids)) + list(ids) for ids in distinct]
        mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in distinct]
        self._cache = None
        self._mask = torch.tensor(mask, device=self._model.device)
        logits = self._forward(torch.tensor(padded, device=self._model.device))
        self._take(places)
        return logits[places]

    def go_on(self, new_ids: list[int], kept: list[int]) -> torch.Tensor:
        """Read one new id for each of the rows that are `kept`; return what may follow: (len(kept), vocab)."""
        if len(kept) < len(self._mask):
            self._take(torch.tensor(kept, device=self._model.device))
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(kept), 1)], dim=1)
        return self._forward(torch.tensor(new_ids, device=self._model.device)[:, None])

    def choose(self, logits: torch.Tensor, chances: list[random.Random]) -> list[int]:
        """Return the next id of each row: the likeliest, or one drawn from the nucleus."""
        if self._protocol.temperature == 0:
            return [int(one) for one in logits.argmax(-1)]
        probs = keep_nucleus(logits / self._protocol.temperature, self._protocol.top_p).double().softmax(-1)
        # By the inverse of the distribution function: one number per row, the same on every device.
        draws = torch.tensor([[chance.random()] for chance in chances], dtype=torch.float64, device=probs.device)
        reached = probs.cumsum(-1)
        return [int(one) for one in torch.searchsorted(reached, draws * reached[:, -1:], right=True).squeeze(-1)]

    def _forward(self, ids: torch.Tensor) -> torch.Tensor:
        more: dict[str, Any] = {}
        if "position_ids" in self._takes:
            more["position_ids"] = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in self._takes:
            more["logits_to_keep"] = 1
        output = self._model(
            input_ids=ids, attention_mask=self._mask, past_key_values=self._cache, use_cache=True, **more
        )
        self._cache = output.past_key_values
        return torch.as_tensor(output.logits[:, -1].float())

    def _take(self, places: torch.Tensor) -> None:
        self._cache.batch_select_indices(places)
        self._mask = self._mask[places]


def _load_model(checkpoint: Checkpoint, settings: Settings) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    machine.use_threads(torch)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            checkpoint.source, revision=checkpoint.revision, dtype=getattr(torch, settings.dtype)
        )
    except Exception as error:  # safetensors, torch and each model class fail in their own ways on bad files
        raise cannot_load(checkpoint, "model", error) from error
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
