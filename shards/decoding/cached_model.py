"""A causal language model that decodes a batch of rows, which shrinks as rows finish.

Each distinct prompt of a batch is prefilled once, and its keys and values are copied to its rows. Prompts of like
length are prefilled together: little padding, and activations of a few thousand tokens only.

Shape suffixes: B rows of the batch, D distinct prompts, T positions, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional

from shards.decoding import grouped_attention, growing_cache

CPU_PREFILL_TOKENS, PREFILL_TOKENS = 2048, 32_768
"""Most tokens that are prefilled together, padding included: on a CPU, and elsewhere."""


class CachedModel:
    """A model with the keys and values of its current batch.

    Args:
        model: A causal language model of transformers, on its device. Its SDPA attention becomes the grouped one.
        vocab_size: Logits of each position that are returned; None for all, padding of the vocabulary included.
    """

    def __init__(self, model: Any, *, vocab_size: int | None = None) -> None:
        if model.config._attn_implementation == "sdpa":
            model.set_attn_implementation(grouped_attention.register())
        self.config = model.config
        self._model, self._vocab_size = model, vocab_size
        self._parameters = inspect.signature(model.forward).parameters
        self._cache: Any = None
        self._mask_BT = torch.empty(0)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read a batch of prompts, each distinct one once; return the next-token logits: (B, V), float32."""
        distinct = sorted(dict.fromkeys(map(tuple, prompts)), key=len)
        place_of = {ids: place for place, ids in enumerate(distinct)}
        places_B = torch.tensor([place_of[tuple(ids)] for ids in prompts], device=self._model.device)
        logits_DV = self._prefill(distinct)
        growing_cache.make_room(self._cache)
        self._select(places_B)
        return logits_DV[places_B]

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read prompts in groups, and join their keys and values where all layers keep plain ones."""
        logits, caches, masks = [], [], []
        most = CPU_PREFILL_TOKENS if self._model.device.type == "cpu" else PREFILL_TOKENS
        for group in groups(prompts, most):
            logits.append(self._read(group))
            if len(group) < len(prompts) and not growing_cache.is_plain(self._cache):
                return self._read(prompts)
            caches.append(self._cache)
            masks.append(self._mask_BT)
        self._cache = growing_cache.joined(caches)
        width = max(mask_GT.shape[1] for mask_GT in masks)
        self._mask_BT = torch.cat([functional.pad(mask_GT, (width - mask_GT.shape[1], 0)) for mask_GT in masks])
        return torch.cat(logits)

    def _read(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read prompts into a new cache; return the next-token logits: (prompts, V), float32."""
        width = max(map(len, prompts))
        # Padded on the left, so that the next position is the same for all rows. Id 0 is masked.
        padded = [[0] * (width - len(ids)) + list(ids) for ids in prompts]
        mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
        self._cache, self._mask_BT = None, torch.tensor(mask, device=self._model.device)
        return self._forward(torch.tensor(padded, device=self._model.device))

    def decode(self, new_ids: list[int], kept: list[int]) -> torch.Tensor:
        """Read one new id for each of the rows in `kept`; return the next-token logits: (len(kept), V), float32.

        Args:
            new_ids: One id for each kept row.
            kept: Places of the rows that go on, in the batch as it was.
        """
        if len(kept) < len(self._mask_BT):
            self._select(torch.tensor(kept, device=self._model.device))
        self._mask_BT = torch.cat([self._mask_BT, self._mask_BT.new_ones(len(kept), 1)], dim=1)
        return self._forward(torch.tensor(new_ids, device=self._model.device)[:, None])

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
        return torch.as_tensor(output.logits[:, -1, : self._vocab_size].float())

    def _select(self, places_B: torch.Tensor) -> None:
        self._cache.batch_select_indices(places_B)
        self._mask_BT = self._mask_BT[places_B]


def groups(prompts: Sequence[Sequence[int]], most: int) -> Iterator[Sequence[Sequence[int]]]:
    """Yield prompts, which are sorted by length, in groups of at most `most` tokens with their padding."""
    begin = 0
    for end, ids in enumerate(prompts):
        if end > begin and (end - begin + 1) * len(ids) > most:
            yield prompts[begin:end]
            begin = end
    yield prompts[begin:]
